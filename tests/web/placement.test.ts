import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CacheOptions } from "../../src/index.js";
import { DiffusionPipeline } from "../../src/pipelines/diffusion-pipeline.js";
import { openPretrained } from "../../src/pipelines/pretrained.js";
import { platform } from "../../src/platform/node/index.js";
import type { Engine, GraphFile } from "../../src/runtime/engine.js";
import { inChromium, launch, noBrowser } from "./browser.js";
import { type Site, serve } from "./site.js";

/** Notes the graphs that it is given for a GPU, and loads none; those that run once run on the processor. */
function listing(graphs: GraphFile[]): Engine {
  const noRuns = async (): Promise<never> => {
    throw new Error("nothing runs here");
  };
  const nothing = async (): Promise<void> => {};
  return {
    device: { kind: "webgpu", title: "a list of graphs" },
    target: "gpu",
    async load(graph) {
      if (!graph.once) graphs.push(graph);
      return { run: noRuns, runEach: noRuns, release: nothing };
    },
    ...{ holdZeros: nothing, take: nothing, free: nothing, close: nothing },
  };
}

/** What caches run on a model, the decoder among it, each graph once. */
async function graphsOf(model: string, caches: readonly CacheOptions[]): Promise<GraphFile[]> {
  const graphs: GraphFile[] = [];
  const parts = await openPretrained(model, {}, { ...platform, createEngine: async () => listing(graphs) });
  for (const cache of caches) await DiffusionPipeline.of(parts).warmUp(cache);
  return [...new Map(graphs.map((graph) => [Buffer.from(graph.model).toString("latin1"), graph])).values()];
}

/** Loads a graph and its weights, by their paths in the site. @returns what the runtime says of where its nodes run */
declare function placements(
  graph: string,
  weights: readonly (readonly [name: string, path: string])[],
): Promise<string[]>;

/** The runtime tells in its most talkative log, which it writes to the console. */
const SCRIPT = `
let lines = [];
for (const name of ["log", "info", "warn", "error", "debug"]) console[name] = (...words) => void lines.push(words.join(" "));
const ort = await import("/ort/ort.jspi.bundle.min.mjs");
ort.env.logLevel = "verbose";
const adapter = await navigator.gpu.requestAdapter();
const { maxStorageBuffersPerShaderStage } = adapter.limits;
const device = await adapter.requestDevice({ requiredLimits: { maxStorageBuffersPerShaderStage } });
const read = async (path) => (await fetch("/" + path)).blob();
const blobs = new Map();
const kept = async (at) => blobs.get(at) ?? blobs.set(at, await read(at)).get(at);
window.placements = async (graph, weights) => {
  const externalData = await Promise.all(weights.map(async ([path, at]) => ({ path, data: await kept(at) })));
  const model = new Uint8Array(await (await read(graph)).arrayBuffer());
  lines = [];
  const executionProviders = [{ name: "webgpu", device }];
  const lost = device.lost.then(({ message }) => Promise.reject(new Error("the GPU was lost: " + message)));
  const made = ort.InferenceSession.create(model, { executionProviders, logSeverityLevel: 0, externalData });
  const session = await Promise.race([made, lost]);
  await session.release();
  return lines.flatMap((text) => text.split("\\n")).filter((line) => line.includes("VerifyEachNode"));
};`;

/** Operators with nodes on the processor, and copies to it or from it. */
function fallBacks(said: readonly string[]): string[] {
  let provider = "";
  const found = new Set<string>();
  for (const line of said) {
    provider = /laced on \[(\w+)\]/.exec(line)?.[1] ?? provider;
    const op = / {3}(\w+) \(/.exec(line)?.[1];
    if (op && (provider === "CPUExecutionProvider" || op.startsWith("Memcpy"))) found.add(op);
  }
  if (provider === "") throw new Error("the runtime does not say where nodes run");
  return [...found].sort();
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came of it in ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** Longer than any graph here takes to load on a slow machine. */
const PATIENCE_MS = 45_000;
const TRIES = 4;

describe.skipIf(noBrowser)(inChromium("on WebGPU"), () => {
  const folder = mkdtempSync(join(tmpdir(), "femo-graphs-"));
  let site: Site;
  let browser: Browser | undefined;
  let page: Page;
  let written = 0;
  beforeAll(async () => {
    const runtime = "node_modules/onnxruntime-web/dist";
    site = await serve([
      ["graphs/", folder],
      ["ort/", runtime],
      ["models/", "models"],
    ]);
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  async function open(): Promise<Browser> {
    const opened = await launch();
    page = await opened.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(site.url);
    await page.addScriptTag({ type: "module", content: SCRIPT });
    await page.waitForFunction(() => "placements" in globalThis);
    return opened;
  }

  /** SwiftShader stalls now and then, and its browser with it: another is asked again. */
  async function placementsOf(...graph: Parameters<typeof placements>): Promise<string[]> {
    for (let tries = 1; ; tries++) {
      try {
        browser ??= await open();
        return await inTime(page.evaluate((of) => placements(...of), graph));
      } catch (error) {
        await browser?.close();
        browser = undefined;
        if (tries === TRIES) throw error;
      }
    }
  }

  /** Of all graphs of some caches together. */
  async function fallBacksOf(model: string, caches: readonly CacheOptions[]): Promise<string[]> {
    const found = new Set<string>();
    for (const { model: bytes, files } of await graphsOf(model, caches)) {
      const name = `${written++}.onnx`;
      writeFileSync(join(folder, name), bytes);
      const weights = files.map(({ name, at }) => [name, String(at).replace(/^.*\/models\//, "models/")] as const);
      for (const op of fallBacks(await placementsOf(`graphs/${name}`, weights))) found.add(op);
    }
    return [...found].sort();
  }

  // Sizes that are symbols are put together on the processor, where they are read from shapes: nothing is copied for it.
  const ofSizes = ["Concat", "Gather"];
  const byModule: CacheOptions = { method: "femo", granularity: "module" };

  test.each<[string, string[], CacheOptions[]]>([
    ["avatars-dit", [], ["none", byModule, "femo", "teaCache", "dbCache", "deltaDit"]],
    ["avatars-flux", ofSizes, ["none", byModule, "femo", "firstBlock"]],
    ["avatars-sd", ofSizes, ["none", byModule, "deepCache"]],
  ])("every node of a step and of the decoder of %s runs on the GPU, sizes aside", async (model, expected, caches) => {
    expect(await fallBacksOf(model, caches)).toEqual(expected);
  });

  test("where tokens, keys or neurons are chosen, what computes their indices falls back to the processor", async () => {
    const copies = ["MemcpyFromHost", "MemcpyToHost"];
    const rows = ["Concat", "Expand", "Gather", "Range", "Reshape", "Shape", "Unsqueeze"];
    expect(await fallBacksOf("avatars-dit", ["toca"])).toEqual(
      [...rows, ...copies, "ConstantOfShape", "OneHot"].sort(),
    );
    expect(await fallBacksOf("avatars-dit", ["chipmunk"])).toEqual(["Add", ...copies, "Mul", "Reshape", "Unsqueeze"]);
  });
});
