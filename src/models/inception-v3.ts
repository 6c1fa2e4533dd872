import { Graph, type Padding, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import type { Checkpoint, CheckpointTensor } from "../weights/index.js";
import { foldedBatchNorms } from "./batch-norm.js";

/** Pixels along a side of what it sees. */
export const INCEPTION_SIZE = 299;

/**
 * What it can give of each image:
 * - `pool_3`: the 2048 means of the last map, of which FID is made;
 * - `spatial`: 7 channels of a map of 17x17 pixels, [y][x][channel], of which sFID is made: 2023;
 * - `logits`: 1008, without their bias, of which the Inception score is made;
 * - `pool_64`, `pool_192`, `pool_768`: means of earlier maps, by their channels.
 */
export const inceptionWidths = {
  pool_3: 2048,
  spatial: 2023,
  logits: 1008,
  pool_64: 64,
  pool_192: 192,
  pool_768: 768,
} as const;

/** One of what it can give. */
export type InceptionOutput = keyof typeof inceptionWidths;

/** Name of the graph's input. */
export const inceptionNames = { image: "image" } as const;

/** Of the map that sFID is made of. */
const SPATIAL_CHANNELS = 7;
const NORM_EPS = 1e-3;

/**
 * Inception-v3 (Szegedy et al., arXiv 1512.00567) as FID has it: the network of 2015-12-05, converted from TensorFlow by
 * pytorch-fid. It departs from torchvision's in how it pools: averages leave out the padding, and the last block takes the
 * greatest instead. From "image", [batch, 3, 299, 299] of about [-1, 1], to what is asked of it, each [batch, width] under
 * its own name. Tensor names are torchvision's, of `foldedInception`: batch norms are in the convolutions.
 */
export function inceptionV3(outputs: readonly InceptionOutput[]): Graph {
  const graph = new Graph();

  const conv = (x: Value, name: string, channels: number, options: ConvShape = {}): Value => {
    const { kernel = 1, padding = 0, stride = 1 } = options;
    const [height, width] = typeof kernel === "number" ? [kernel, kernel] : kernel;
    const weight = graph.weight(`${name}.weight`, [channels, x.shape[1] as number, height, width]);
    return x.conv(weight, graph.weight(`${name}.bias`, [channels]), { padding, stride }).relu();
  };
  const [along, across] = [
    (side: number): ConvShape => ({ kernel: [1, side], padding: { height: 0, width: (side - 1) / 2 } }),
    (side: number): ConvShape => ({ kernel: [side, 1], padding: { height: (side - 1) / 2, width: 0 } }),
  ];
  const square = (side: number): ConvShape => ({ kernel: side, padding: (side - 1) / 2 });
  const halving: ConvShape = { kernel: 3, stride: 2 };

  const averaged = (x: Value): Value => x.averagePool(3, { padding: 1 });
  const greatest = (x: Value): Value => x.maxPool(3, { padding: 1 });
  const halved = (x: Value): Value => x.maxPool(3, { stride: 2 });
  const join = ([first, ...others]: readonly [Value, ...Value[]]): Value => first.concat(others, 1);

  /** 35x35 */
  const blockA = (x: Value, name: string, pooled: number): Value => {
    const b = (branch: string) => `${name}.branch${branch}`;
    const five = conv(conv(x, b("5x5_1"), 48), b("5x5_2"), 64, square(5));
    const double = conv(conv(x, b("3x3dbl_1"), 64), b("3x3dbl_2"), 96, square(3));
    return join([
      conv(x, b("1x1"), 64),
      five,
      conv(double, b("3x3dbl_3"), 96, square(3)),
      conv(averaged(x), b("_pool"), pooled),
    ]);
  };

  /** 35x35 to 17x17 */
  const blockB = (x: Value, name: string): Value => {
    const b = (branch: string) => `${name}.branch${branch}`;
    const double = conv(conv(x, b("3x3dbl_1"), 64), b("3x3dbl_2"), 96, square(3));
    return join([conv(x, b("3x3"), 384, halving), conv(double, b("3x3dbl_3"), 96, halving), halved(x)]);
  };

  /** 17x17 */
  const blockC = (x: Value, name: string, width: number): readonly [Value, ...Value[]] => {
    const b = (branch: string) => `${name}.branch${branch}`;
    const seven = conv(conv(x, b("7x7_1"), width), b("7x7_2"), width, along(7));
    const first = conv(conv(x, b("7x7dbl_1"), width), b("7x7dbl_2"), width, across(7));
    const second = conv(conv(first, b("7x7dbl_3"), width, along(7)), b("7x7dbl_4"), width, across(7));
    return [
      conv(x, b("1x1"), 192),
      conv(seven, b("7x7_3"), 192, across(7)),
      conv(second, b("7x7dbl_5"), 192, along(7)),
      conv(averaged(x), b("_pool"), 192),
    ];
  };

  /** 17x17 to 8x8 */
  const blockD = (x: Value, name: string): Value => {
    const b = (branch: string) => `${name}.branch${branch}`;
    const three = conv(conv(x, b("3x3_1"), 192), b("3x3_2"), 320, halving);
    const seven = conv(conv(x, b("7x7x3_1"), 192), b("7x7x3_2"), 192, along(7));
    return join([three, conv(conv(seven, b("7x7x3_3"), 192, across(7)), b("7x7x3_4"), 192, halving), halved(x)]);
  };

  /** 8x8 */
  const blockE = (x: Value, name: string, pool: (x: Value) => Value): Value => {
    const b = (branch: string) => `${name}.branch${branch}`;
    const fork = (y: Value, left: string, right: string): Value =>
      join([conv(y, b(left), 384, along(3)), conv(y, b(right), 384, across(3))]);
    const double = conv(conv(x, b("3x3dbl_1"), 448), b("3x3dbl_2"), 384, square(3));
    return join([
      conv(x, b("1x1"), 320),
      fork(conv(x, b("3x3_1"), 384), "3x3_2a", "3x3_2b"),
      fork(double, "3x3dbl_3a", "3x3dbl_3b"),
      conv(pool(x), b("_pool"), 192),
    ]);
  };

  const mean = (x: Value): Value => x.mean([2, 3]).reshape([BATCH, x.shape[1] as number]);

  const image = graph.input(inceptionNames.image, [BATCH, 3, INCEPTION_SIZE, INCEPTION_SIZE]);
  const stem = conv(conv(image, "Conv2d_1a_3x3", 32, halving), "Conv2d_2a_3x3", 32, { kernel: 3 });
  const pool64 = halved(conv(stem, "Conv2d_2b_3x3", 64, square(3))); // [B, 64, 73, 73]
  const pool192 = halved(conv(conv(pool64, "Conv2d_3b_1x1", 80), "Conv2d_4a_3x3", 192, { kernel: 3 })); // [B, 192, 35, 35]
  const a = blockA(blockA(blockA(pool192, "Mixed_5b", 32), "Mixed_5c", 64), "Mixed_5d", 64); // [B, 288, 35, 35]
  const b = join(blockC(blockB(a, "Mixed_6a"), "Mixed_6b", 128)); // [B, 768, 17, 17]
  const d = blockC(join(blockC(b, "Mixed_6c", 160)), "Mixed_6d", 160);
  const e = join(blockC(join(d), "Mixed_6e", 192)); // [B, 768, 17, 17]
  const last = blockE(blockE(blockD(e, "Mixed_7a"), "Mixed_7b", averaged), "Mixed_7c", greatest); // [B, 2048, 8, 8]

  const spatial = (): Value => {
    const map = d[0].transpose([1, 0, 2, 3]); // the first branch of 6d, channels first
    const kept = map.gather(graph.integers(Array.from({ length: SPATIAL_CHANNELS }, (_, c) => c)));
    return kept.transpose([1, 2, 3, 0]).reshape([BATCH, inceptionWidths.spatial]);
  };
  const make: Readonly<Record<InceptionOutput, () => Value>> = {
    pool_3: () => mean(last),
    spatial,
    logits: () => mean(last).linear(graph.weight("fc.weight", [inceptionWidths.logits, inceptionWidths.pool_3]), null),
    pool_64: () => mean(pool64),
    pool_192: () => mean(pool192),
    pool_768: () => mean(e),
  };
  for (const output of outputs) graph.output(output, make[output]());
  return graph;
}

interface ConvShape {
  /** Default: 1. */
  readonly kernel?: number | readonly [height: number, width: number];
  readonly padding?: number | { readonly height: Padding; readonly width: Padding };
  readonly stride?: number;
}

/**
 * A checkpoint of pytorch-fid's file with the batch norms folded into the convolutions, to be kept (`Platform.kept`) and
 * then computed with. It is checked here: later only what is asked for is looked at.
 * @throws FemoError E_WEIGHT if it does not have exactly the network's tensors
 */
export function foldedInception(checkpoint: Checkpoint): Checkpoint {
  const { weights } = inceptionV3(["logits"]).reachable();
  const convs = weights.filter(({ name }) => name.endsWith(".weight") && name !== "fc.weight");
  const normed = convs.map(({ name }) => {
    const layer = name.slice(0, -".weight".length);
    return { name: layer, conv: `${layer}.conv`, norm: `${layer}.bn` };
  });
  const expected = convs.flatMap(({ shape }, i) => {
    const { conv, norm } = normed[i] as { conv: string; norm: string };
    const channels = [shape[0] as number];
    const parts = ["weight", "bias", "running_mean", "running_var"];
    return [
      { name: `${conv}.weight`, shape: shape as number[] },
      ...parts.map((part) => ({ name: `${norm}.${part}`, shape: channels })),
    ];
  });
  const classes = [inceptionWidths.logits];
  const fc = [
    { name: "fc.weight", shape: [...classes, inceptionWidths.pool_3] },
    { name: "fc.bias", shape: classes },
  ];
  checkpoint.verify([...expected, ...fc], { ignore: (name) => name.endsWith(".num_batches_tracked") });
  const logits = checkpoint.get("fc.weight") as CheckpointTensor;
  return checkpoint.withTensors([logits, ...foldedBatchNorms(checkpoint, normed, NORM_EPS)]);
}
