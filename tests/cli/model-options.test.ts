import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { COMMIT, type FakeHub } from "../platform/hub/server.js";
import { REPO, startHub, temporaryFolder } from "../platform/hub/setup.js";

const MODEL = fileURLToPath(new URL("../goldens/dit-pipeline", import.meta.url));
const WEIGHTS = "transformer/diffusion_pytorch_model.safetensors";

/** A small pipeline on a Hub, its transformer in half precision only by name. */
async function hubWithVariant(): Promise<FakeHub> {
  const paths = readdirSync(MODEL, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(MODEL.length + 1));
  const place = (path: string): string => (path === WEIGHTS ? path.replace(".safetensors", ".fp16.safetensors") : path);
  const contents = paths.map((path) => [place(path), Uint8Array.from(readFileSync(join(MODEL, path)))]);
  const hub = await startHub(Object.fromEntries(contents));
  hub.refs.set("refs/pr/1", COMMIT);
  return hub;
}

function femo(args: string[], options: { cwd?: string; env?: Record<string, string> } = {}) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((done) => {
    const env = { ...process.env, ...options.env };
    const child = spawn(process.execPath, [resolve("dist/cli/main.js"), ...args], { ...options, env });
    const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on("data", (data) => stdout.push(data));
    child.stderr.on("data", (data) => stderr.push(data));
    child.on("close", (code) =>
      done({ code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }),
    );
  });
}

test("femo classes: --revision and --cache-dir; two configs are downloaded", async () => {
  const [hub, cwd] = [await hubWithVariant(), temporaryFolder()];
  const args = ["classes", "--model", REPO, "--revision", "refs/pr/1", "--cache-dir", "kept"];
  const { code, stdout, stderr } = await femo(args, { cwd, env: { HF_ENDPOINT: hub.url } });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/^0\t/);
  expect(hub.downloads().sort()).toEqual(["model_index.json", "transformer/config.json"]);
  expect(readdirSync(join(cwd, "kept"))).toEqual(["models--owner--tiny"]);
});

test("femo generate: --variant, --device, and the name of a model on the Hub", async () => {
  const [hub, cwd] = [await hubWithVariant(), temporaryFolder()];
  const args = ["generate", "0", "--model", REPO, "--variant", "fp16", "--device", "cpu", "--cache-dir", "kept"];
  const { code, stdout, stderr } = await femo([...args, "--steps", "1", "--json"], {
    cwd,
    env: { HF_ENDPOINT: hub.url },
  });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(stdout).report.model).toBe(REPO);
});

test.each([
  [["generate", "0", "--device", "dml"], "Only Windows has it"],
  [["generate", "0", "--device", "wasm"], "only browsers have"],
  [["generate", "0", "--device", "tpu"], "device: expected one of auto, cpu, webgpu"],
  [["generate", "0", "--revision", "v1"], "revision: only of a model on the Hub"],
  [["compare", "--variant", "../x"], 'variant: expected letters, digits, "-" and "_"'],
  [["classes", "--model", "a/b@v1", "--revision", "v2"], "Leave one of them out"],
])("%j fails with 2 and says %s", async (args, words) => {
  const { code, stdout, stderr } = await femo(args, { cwd: temporaryFolder() });
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toContain(words);
});
