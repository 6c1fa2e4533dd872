import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bindShape, type Graph, toOnnx } from "../../src/graph/index.js";
import { flux } from "../../src/models/flux.js";
import { type FluxConfig, fluxConfigFromJson, fluxDev, fluxSchnell } from "../../src/models/flux-config.js";
import { fluxSchedulers, isOriginalFlux, originalFlux } from "../../src/models/flux-original.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { keptCheckpoint } from "../../src/platform/node/kept.js";
import type { GraphFile, HostTensor } from "../../src/runtime/engine.js";
import { graphWriter } from "../../src/runtime/graph-writer.js";
import { traceCut } from "../../src/tracing/index.js";
import {
  Checkpoint,
  isDerived,
  isPacked,
  openCheckpoint,
  type PackedMatrix,
  recipeOf,
  type TensorInfo,
} from "../../src/weights/index.js";
import { safetensorsHeader } from "../../src/weights/safetensors-header.js";
import { engineForTests, floats, numbers, relativeError, weightsOf } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { expectedOriginals, type FloatTensor, inFloat32, openOriginal, sumsOf } from "./originals.js";

const engine = engineForTests();
const parity = 3e-5; // as in flux.test.ts
const axesDimsRope = [4, 6, 6];
const openTiny = async (file: string) => originalFlux(await openOriginal(file), { axesDimsRope });

/** File, and the key of what is expected of it. */
const FILES = [
  ["flux1-tiny.safetensors", "flux"],
  ["flux1-tiny-Q8_0.gguf", "flux-q8_0"],
  ["flux1-tiny-scaled.safetensors", "flux-scaled"],
] as const;

describe.each(FILES)("%s", (file, key) => {
  test("has the config and, to the bit, the tensors of diffusers' model", async () => {
    const { config, scheduler, checkpoint } = await openTiny(file);
    expect(config).toEqual(fluxConfigFromJson(expectedOriginals[key]?.config));
    expect(scheduler).toBe("dev");
    expect(sumsOf(await inFloat32(checkpoint))).toEqual(expectedOriginals[key]?.tensors);
  });

  test("gives what diffusers gives", async () => {
    const golden = await openOriginal("golden.safetensors");
    const { config, checkpoint } = await openTiny(file);
    const found = await run(config, await inFloat32(checkpoint), golden);
    expect(relativeError(found, await golden.readTensor(key))).toBeLessThan(parity);
    if (key === "flux") return;
    // What 8 bits lose.
    expect(relativeError(found, await golden.readTensor("flux"))).toBeLessThan(key === "flux-q8_0" ? 0.02 : 0.1);
    expect(relativeError(found, await golden.readTensor("flux"))).toBeGreaterThan(parity);
  });
});

test("a GGUF file runs as it is: its matrices are multiplied in the whole numbers that they are stored in", async () => {
  const golden = await openOriginal("golden.safetensors");
  const { config, checkpoint } = await openTiny("flux1-tiny-Q8_0.gguf");
  const kept = await keptCheckpoint(checkpoint, { folder });
  expect(kept.tensors().filter(isPacked).length).toBeGreaterThan(20);
  const found = await runFile(config, golden, (graph) => graphWriter(kept).write(graph));
  // The product rounds what it multiplies with to 8 bits.
  expect(relativeError(found, await golden.readTensor("flux-q8_0"))).toBeLessThan(0.03);
});

const folder = realpathSync(mkdtempSync(join(tmpdir(), "femo-original-")));
afterAll(() => rmSync(folder, { recursive: true }));

/** What the graph gives for the inputs of the golden file, as diffusers packs it. */
async function run(config: FluxConfig, tensors: readonly FloatTensor[], golden: Checkpoint): Promise<number[]> {
  const data = tensors.map(({ values }) => new Uint8Array(values.buffer));
  writeFileSync(join(folder, "float32.safetensors"), Buffer.concat([safetensorsHeader(tensors), ...data]));
  const weights = weightsOf(await openCheckpoint(nodeFolder(folder), "float32.safetensors"));
  return runFile(config, golden, (graph) => ({ model: toOnnx(graph, weights.locate), files: weights.files }));
}

async function runFile(config: FluxConfig, golden: Checkpoint, write: (graph: Graph) => GraphFile): Promise<number[]> {
  const size = { rows: 3, columns: 5, text: 4 };
  const model = flux(config);
  const feeds: Record<string, HostTensor> = {};
  for (const { name, shape, values } of model.inputs) {
    const stored = golden.get(name)?.shape ?? [];
    feeds[name] = values
      ? floats(bindShape(shape, size), values(size))
      : floats(name === "sample" ? [1, ...bindShape(shape, size)] : stored, await golden.readTensor(name));
  }
  const { sample } = feeds;
  feeds.sample = floats(
    sample?.dims ?? [],
    moved(numbers(sample), (image, packed) => [image, packed]),
  );
  const session = await engine.load(write(traceCut(model, { hoisted: "inline" }).graph));
  const { outputs } = await session.run({ feeds, fetch: ["output"] });
  await session.release();
  return moved(numbers(outputs.output), (image, packed) => [packed, image]);

  /** Between an image [2, 6, 10] and its tokens [15, 8], feature 4 c + 2 dy + dx. */
  function moved(from: number[], direction: (image: number, packed: number) => [to: number, from: number]): number[] {
    const to = new Array<number>(from.length);
    for (let packed = 0; packed < from.length; packed++) {
      const [token, feature] = [Math.floor(packed / 8), packed % 8];
      const [channel, dy, dx] = [feature >> 2, (feature >> 1) & 1, feature & 1];
      const [y, x] = [2 * Math.floor(token / 5) + dy, 2 * (token % 5) + dx];
      const [at, of] = direction((channel * 6 + y) * 10 + x, packed);
      to[at] = from[of] as number;
    }
    return to;
  }
}

describe("the tensors of the release", () => {
  const layers = (name: string, rows: number, columns: number): [string, number[]][] => [
    [`${name}.weight`, [rows, columns]],
    [`${name}.bias`, [rows]],
  ];
  interface Release {
    readonly width?: number;
    readonly head?: number;
    readonly channels?: number;
    readonly doubles?: number;
    readonly singles?: number;
    readonly guidance?: boolean;
  }
  /** Names and shapes as the release's code has them. */
  function release({
    width = 3072,
    head = 128,
    channels = 64,
    doubles = 19,
    singles = 38,
    guidance = true,
  }: Release = {}) {
    const norms = (name: string): [string, number[]][] => [
      [`${name}.query_norm.scale`, [head]],
      [`${name}.key_norm.scale`, [head]],
    ];
    const shapes: [string, number[]][] = [
      ...layers("img_in", width, channels),
      ...layers("txt_in", width, 4096),
      ...["time_in", ...(guidance ? ["guidance_in"] : [])].flatMap((name) => [
        ...layers(`${name}.in_layer`, width, 256),
        ...layers(`${name}.out_layer`, width, width),
      ]),
      ...layers("vector_in.in_layer", width, 768),
      ...layers("vector_in.out_layer", width, width),
      ...Array.from({ length: doubles }, (_, i) =>
        ["img", "txt"].flatMap((stream) => [
          ...layers(`double_blocks.${i}.${stream}_mod.lin`, 6 * width, width),
          ...layers(`double_blocks.${i}.${stream}_attn.qkv`, 3 * width, width),
          ...norms(`double_blocks.${i}.${stream}_attn.norm`),
          ...layers(`double_blocks.${i}.${stream}_attn.proj`, width, width),
          ...layers(`double_blocks.${i}.${stream}_mlp.0`, 4 * width, width),
          ...layers(`double_blocks.${i}.${stream}_mlp.2`, width, 4 * width),
        ]),
      ).flat(),
      ...Array.from({ length: singles }, (_, i) => [
        ...layers(`single_blocks.${i}.linear1`, 7 * width, width),
        ...layers(`single_blocks.${i}.linear2`, width, 5 * width),
        ...norms(`single_blocks.${i}.norm`),
        ...layers(`single_blocks.${i}.modulation.lin`, 3 * width, width),
      ]).flat(),
      ...layers("final_layer.linear", 64, width),
      ...layers("final_layer.adaLN_modulation.1", 2 * width, width),
    ];
    let offset = 0;
    return shapes.map(([name, shape]): TensorInfo => {
      const byteLength = 2 * shape.reduce((a, b) => a * b, 1);
      offset += byteLength;
      return { name, shape, dtype: "bfloat16", file: "/w/flux.safetensors", offset: offset - byteLength, byteLength };
    });
  }
  const open = (tensors: readonly TensorInfo[]) => originalFlux(Checkpoint.fromTensors("flux1.safetensors", tensors));

  test("FLUX.1-dev has 780 and FLUX.1-schnell 776, which make exactly diffusers' models", async () => {
    for (const [guidance, count, config, scheduler] of [
      [true, 780, fluxDev, "dev"],
      [false, 776, fluxSchnell, "schnell"],
    ] as const) {
      const tensors = release({ guidance });
      expect(tensors).toHaveLength(count);
      const found = await open(tensors);
      expect(found.config).toEqual(config);
      expect(found.scheduler).toBe(scheduler);
      const needed = traceCut(flux(config), { hoisted: "inline" }).graph.reachable().weights;
      const named = found.checkpoint.tensors().map(({ name, shape }) => `${name} ${shape}`);
      expect(named.sort()).toEqual(needed.map(({ name, shape }) => `${name} ${shape}`).sort());
    }
    expect(fluxSchedulers.dev.use_dynamic_shifting).toBe(true);
    expect(fluxSchedulers.schnell.use_dynamic_shifting).toBe(false);
  });

  test("are parts of the file, each byte of it once, but for the last modulation, which is computed", async () => {
    const tensors = release({ doubles: 3, singles: 4 });
    const { checkpoint } = await open(tensors);
    const all = checkpoint.tensors();
    expect(all.filter(isDerived).map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["norm_out.linear.weight", "bfloat16", [6144, 3072]],
      ["norm_out.linear.bias", "bfloat16", [6144]],
    ]);
    let end = 0;
    for (const { offset, byteLength } of (all.filter((tensor) => !isDerived(tensor)) as TensorInfo[]).sort(
      (a, b) => a.offset - b.offset,
    )) {
      expect(offset).toBe(end);
      end = offset + byteLength;
    }
    expect(end).toBe(tensors.find(({ name }) => name === "final_layer.adaLN_modulation.1.weight")?.offset);
    const at = (name: string): number => (checkpoint.get(name) as TensorInfo).offset;
    const [qkv, joined] = ["double_blocks.2.txt_attn.qkv.weight", "single_blocks.3.linear1.bias"].map(
      (name) => tensors.find((tensor) => tensor.name === name)?.offset as number,
    ) as [number, number];
    const matrix = 2 * 3072 * 3072;
    const text = "transformer_blocks.2.attn.add_";
    expect(["q", "k", "v"].map((part) => at(`${text}${part}_proj.weight`))).toEqual(
      [0, 1, 2].map((i) => qkv + i * matrix),
    );
    const single = "single_transformer_blocks.3";
    expect(["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"].map((part) => at(`${single}.${part}.bias`))).toEqual(
      [0, 1, 2, 3].map((i) => joined + i * 2 * 3072),
    );
  });

  test("in blocks of GGUF they split into ranges of rows as well", async () => {
    const blocks = release({ doubles: 1, singles: 1 }).map((tensor): TensorInfo => {
      if (tensor.shape.length === 1) return tensor;
      const byteLength = (tensor.shape.reduce((a, b) => a * b, 1) / 256) * 144;
      return tensor.name.startsWith("img_in") ? tensor : { ...tensor, dtype: "q4_k", byteLength };
    });
    const { checkpoint } = await open(blocks);
    const linear1 = blocks.find(({ name }) => name === "single_blocks.0.linear1.weight") as TensorInfo;
    const mlp = checkpoint.get("single_transformer_blocks.0.proj_mlp.weight") as PackedMatrix;
    expect(mlp).toMatchObject({ bits: 4, block: 32, shape: [4 * 3072, 3072] });
    expect(Object.keys(mlp.parts)).toEqual(["values", "scales", "minimums"]);
    const bytes = 4 * 3072 * 12 * 144;
    expect(recipeOf(mlp)).toContain(`${linear1.offset + 3 * 3072 * 12 * 144},${bytes}`);
    expect(checkpoint.get("norm_out.linear.weight")).toMatchObject({ dtype: "float32" });
  });

  test("with fewer blocks and heads of another width: the config from shapes", async () => {
    const { config } = await open(release({ doubles: 8, singles: 3 }));
    expect(config).toEqual({ ...fluxDev, numLayers: 8, numSingleLayers: 3 });
    const small = await open(release({ width: 192, head: 64, doubles: 1, singles: 1 }));
    expect(small.config).toMatchObject({ numAttentionHeads: 3, attentionHeadDim: 64, axesDimsRope: [8, 28, 28] });
    const message = await femoError("E_CONFIG", () => open(release({ width: 96, head: 48, doubles: 1, singles: 1 })));
    expect(message).toContain("found 48");
    expect(message).toContain("Pass axesDimsRope");
  });

  test("behind a prefix, beside other models' tensors", async () => {
    const tensors = release({ doubles: 1, singles: 1 }).map((tensor) => ({
      ...tensor,
      name: `model.diffusion_model.${tensor.name}`,
    }));
    const other = { ...(tensors[0] as TensorInfo), name: "vae.decoder.conv_in.weight" };
    const { checkpoint } = await open([...tensors, other]);
    expect(
      checkpoint.names().filter((name) => !/^(x_|context_|time_|transformer|single_|norm_out|proj_out)/.test(name)),
    ).toEqual([]);
  });

  const like = (name: string): TensorInfo => ({ ...(release({ doubles: 0, singles: 0 })[0] as TensorInfo), name });
  test.each<[string, Release, TensorInfo[], RegExp]>([
    ["Canny or Depth", { channels: 128 }, [], /found FLUX\.1 Canny or Depth/],
    ["Fill", { channels: 384 }, [], /found FLUX\.1 Fill/],
    ["other inputs", { channels: 96 }, [], /takes 96 channels for each token and gives 64/],
    ["Chroma", { guidance: false }, [like("distilled_guidance_layer.in_proj.weight")], /found Chroma/],
    ["FLUX.2", {}, [like("single_stream_modulation.lin.weight")], /found FLUX\.2/],
  ])("%s: refused by name", async (_, options, more, message) => {
    const tensors = [...release({ doubles: 1, singles: 1, ...options }), ...more];
    expect(await femoError("E_WEIGHT", () => open(tensors))).toMatch(message);
  });

  test("missing, surplus, misshapen and of a type that is not read: named", async () => {
    const tensors = release({ doubles: 2, singles: 1 });
    const without = (name: string) => open(tensors.filter((tensor) => tensor.name !== name));
    const changed = (name: string, change: Partial<TensorInfo>) =>
      open(tensors.map((tensor) => (tensor.name === name ? { ...tensor, ...change } : tensor)));
    for (const name of ["img_in.weight", "vector_in.in_layer.weight", "final_layer.linear.weight"]) {
      expect(await femoError("E_WEIGHT", () => without(name))).toContain(
        `with a tensor "${name}" of 2 axes, found none`,
      );
    }
    expect(await femoError("E_WEIGHT", () => without("double_blocks.1.txt_mlp.2.bias"))).toContain(
      '"double_blocks.1.txt_mlp.2.bias" [3072]',
    );
    expect(await femoError("E_WEIGHT", () => changed("single_blocks.0.linear1.bias", { shape: [7] }))).toContain(
      "found [7]",
    );
    expect(await femoError("E_WEIGHT", () => open([...tensors, like("single_blocks.0.more")]))).toContain(
      '"single_blocks.0.more"',
    );
    expect(await femoError("E_WEIGHT", () => changed("txt_in.weight", { dtype: "int8" }))).toMatch(
      /"txt_in\.weight": expected float32,.* q4_k.*, found int8/,
    );
    expect(await femoError("E_CONFIG", () => open([...tensors, like("double_blocks.99999999.x")]))).toContain(
      "num_layers",
    );
    const alone = Checkpoint.fromTensors("dit.pt", [like("x_embedder.weight")]);
    expect(isOriginalFlux(alone)).toBe(false);
    expect(await femoError("E_WEIGHT", () => originalFlux(alone))).toContain("expected a FLUX.1 transformer");
  });
});
