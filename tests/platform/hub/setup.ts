import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";
import { type DownloadOptions, downloadFiles, parseModelId } from "../../../src/platform/node/hub/index.js";
import { COMMIT, FakeHub } from "./server.js";

export const REPO = "owner/tiny";

/** Bytes that no part of which equals another. */
export const weights = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 2654435761) >>> 13);

/** A small pipeline with more in its folder than is needed. */
export const PIPELINE = {
  "README.md": "not needed",
  "model_index.json": {
    _class_name: "DiTPipeline",
    scheduler: ["diffusers", "DDIMScheduler"],
    transformer: ["diffusers", "DiTTransformer2DModel"],
    vae: [null, null],
  },
  "scheduler/scheduler_config.json": { _class_name: "DDIMScheduler" },
  "transformer/config.json": { _class_name: "DiTTransformer2DModel" },
  "transformer/diffusion_pytorch_model.safetensors": weights(300_000),
  "transformer/diffusion_pytorch_model.bin": "the same again",
  "transformer/flax_model.msgpack": "and again",
};
export const NEEDED = [
  "model_index.json",
  "scheduler/scheduler_config.json",
  "transformer/config.json",
  "transformer/diffusion_pytorch_model.safetensors",
];
export const BIG = "transformer/diffusion_pytorch_model.safetensors";

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const action of cleanUp.splice(0)) await action();
});

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "femo-hub-"));
  cleanUp.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function startHub(contents: Record<string, unknown> = PIPELINE): Promise<FakeHub> {
  const hub = await FakeHub.start(REPO, contents);
  cleanUp.push(() => hub.close());
  return hub;
}

export const environment = (hub: FakeHub, cache: string, more: Record<string, string> = {}) => ({
  HF_ENDPOINT: hub.url,
  HF_HOME: cache,
  ...more,
});

/** Downloads the pipeline of the server without waiting long between attempts. */
export async function download(
  hub: FakeHub,
  cache: string,
  options: DownloadOptions & { revision?: string } = {},
): Promise<string> {
  const { revision = "main", env, ...rest } = options;
  const id = parseModelId(`${REPO}@${revision}`);
  if (!id) throw new Error("no model id");
  return downloadFiles(id, { retry: { firstDelayMs: 1 }, ...rest, env: { ...environment(hub, cache), ...env } });
}

export const repositoryFolder = (cache: string): string => join(cache, "hub", "models--owner--tiny");
export const snapshotFolder = (cache: string, commit = COMMIT): string =>
  join(repositoryFolder(cache), "snapshots", commit);

/** Every file below a folder, links followed, by its path. */
export function filesBelow(folder: string): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const path = join(folder, name);
    if (lstatSync(path).isDirectory()) continue;
    if (statSync(path).isFile()) found.set(name, Uint8Array.from(readFileSync(path)));
  }
  return found;
}

/** What lies in the blobs folder and is no blob. */
export const partials = (cache: string): string[] =>
  readdirSync(join(repositoryFolder(cache), "blobs")).filter((name) => !/^[0-9a-f]+$/.test(name));
