import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { writeRandomPipeline } from "../benchmarks/random-pipeline.mjs";
import { DiffusionPipeline } from "../src/index.js";
import type { FittedSolver, SolverTarget } from "../src/methods/index.js";
import { dit, ditConfigFromJson } from "../src/models/dit.js";
import { TorchGenerator } from "../src/samplers/index.js";
import { traceCut } from "../src/tracing/index.js";

/** What tests need to know of the tiny DiT: images of 16x16 RGB pixels in patches of 4, two blocks of width 32. */
export const tiny = {
  size: 16,
  tokens: 16,
  width: 32,
  blocks: 2,
  classes: ["oak", "sea lion", "pixel-art", "micah", "ibis"],
} as const;

const transformer = {
  _class_name: "DiTTransformer2DModel",
  in_channels: 3,
  out_channels: 3,
  num_layers: tiny.blocks,
  num_attention_heads: 2,
  attention_head_dim: tiny.width / 2,
  num_embeds_ada_norm: tiny.classes.length,
  patch_size: 4,
  sample_size: tiny.size,
};
const ddim = {
  _class_name: "DDIMScheduler",
  // Little noise: what an untrained network says is never far off, and images stay within the range of pixels.
  beta_start: 0.0001,
  beta_end: 0.01,
  num_train_timesteps: 100,
  clip_sample: false,
  set_alpha_to_one: true,
  steps_offset: 1,
};
const parts = {
  _class_name: "DiTPipeline",
  id2label: Object.fromEntries(tiny.classes.map((name, i) => [i, name])),
  transformer: ["diffusers", "DiTTransformer2DModel"],
  vae: [null, null],
};

/** What may be other than usual. */
interface TinyOptions {
  readonly channels?: number;
  /** Its scheduler's config. */
  readonly scheduler?: { readonly _class_name: string; readonly [key: string]: unknown };
  /** What `solvers.json` has. Default: there is none. */
  readonly solvers?: readonly FittedSolver[];
}

/** A solver as it might have been fitted to the tiny DiT: DDIM's steps. */
export function fittedSolver(runs: number, target: SolverTarget): FittedSolver {
  const psnr = { mean: 30, median: 30, tenthPercentile: 20 };
  return {
    timesteps: Array.from({ length: runs }, (_, i) => 99 - 10 * i),
    table: Array.from({ length: runs }, (_, i) => [...new Array<number>(i).fill(0), 1]),
    ...{ finalAlphaBar: 1, guidanceScale: [1, 2] },
    measured: { target, numInferenceSteps: 20, images: 4, guidanceScale: 1.5, psnr, psnrOfStart: psnr },
  };
}

/** Writes the tiny DiT into a new temporary folder, the same bytes each time. The caller removes it. */
export async function tinyPipeline({
  channels = 3,
  scheduler = ddim,
  solvers,
}: TinyOptions = {}): Promise<{ folder: string; remove(): void }> {
  const config = { ...transformer, in_channels: channels, out_channels: channels };
  const folder = mkdtempSync(join(tmpdir(), "femo-tiny-"));
  const index = { ...parts, scheduler: ["diffusers", scheduler._class_name] };
  const weights = traceCut(dit(ditConfigFromJson(config)), { hoisted: "inline" })
    .graph.reachable()
    .weights.map(({ name, shape }) => ({ name, shape: shape as number[] }));
  const stock = new TorchGenerator(0).randn([1 << 14]);
  await writeRandomPipeline(folder, { index, scheduler, models: { transformer: { config, weights } } }, stock);
  if (solvers) writeFileSync(join(folder, "solvers.json"), JSON.stringify(solvers));
  return { folder, remove: () => rmSync(folder, { recursive: true }) };
}

/** The tiny DiT opened for a file of tests; closed and removed when they are over. */
export async function openTinyPipeline(
  options: TinyOptions = {},
): Promise<{ readonly pipeline: DiffusionPipeline; readonly folder: string }> {
  const { folder, remove } = await tinyPipeline(options);
  const pipeline = await DiffusionPipeline.fromPretrained(folder, { threads: 1 });
  afterAll(async () => {
    await pipeline.close();
    remove();
  });
  return { pipeline, folder };
}
