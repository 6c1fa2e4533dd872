import { type ConvOptions, Graph, type Value } from "../graph/index.js";

/** The networks that LPIPS stands on. */
export const lpipsNets = ["alex", "vgg", "squeeze"] as const;
/** One of them. */
export type LpipsNet = (typeof lpipsNets)[number];

/** One of torchvision's `features`, by its place there. Convolutions and fires end in ReLU. */
type Layer =
  | { readonly at: number; readonly conv: number; readonly kernel: number; readonly options: ConvOptions }
  | { readonly at: number; readonly fire: readonly [squeeze: number, expand: number] }
  | { readonly pool: 2 | 3; readonly ceil?: boolean }
  /** What was made so far is compared. */
  | "tap";

const conv = (at: number, channels: number, kernel = 3, options: ConvOptions = { padding: 1 }): Layer => ({
  ...{ at, kernel, options },
  conv: channels,
});
const fire = (at: number, squeeze: number, expand: number): Layer => ({ at, fire: [squeeze, expand] });
const pool3: Layer = { pool: 3 };
const pool3Ceil: Layer = { pool: 3, ceil: true };
const pool2: Layer = { pool: 2 };

/** AlexNet, VGG-16 and SqueezeNet 1.1 up to the last tap. */
const TRUNKS: Readonly<Record<LpipsNet, readonly Layer[]>> = {
  alex: [
    ...([conv(0, 64, 11, { padding: 2, stride: 4 }), "tap", pool3] as const),
    ...([conv(3, 192, 5, { padding: 2 }), "tap", pool3] as const),
    ...([conv(6, 384), "tap", conv(8, 256), "tap", conv(10, 256), "tap"] as const),
  ],
  vgg: [
    ...([conv(0, 64), conv(2, 64), "tap", pool2] as const),
    ...([conv(5, 128), conv(7, 128), "tap", pool2] as const),
    ...([conv(10, 256), conv(12, 256), conv(14, 256), "tap", pool2] as const),
    ...([conv(17, 512), conv(19, 512), conv(21, 512), "tap", pool2] as const),
    ...([conv(24, 512), conv(26, 512), conv(28, 512), "tap"] as const),
  ],
  squeeze: [
    ...([conv(0, 64, 3, { stride: 2 }), "tap", pool3Ceil] as const),
    ...([fire(3, 16, 64), fire(4, 16, 64), "tap", pool3Ceil] as const),
    ...([fire(6, 32, 128), fire(7, 32, 128), "tap", pool3Ceil] as const),
    ...([fire(9, 48, 192), "tap", fire(10, 48, 192), "tap"] as const),
    ...([fire(11, 64, 256), "tap", fire(12, 64, 256), "tap"] as const),
  ],
};

/** Channels of what is compared, tap by tap. */
export const lpipsChannels: Readonly<Record<LpipsNet, readonly number[]>> = {
  alex: [64, 192, 384, 256, 256],
  vgg: [64, 128, 256, 512, 512],
  squeeze: [64, 128, 256, 384, 384, 512, 512],
};

/** Pixels that the least side of an image must have. */
export const lpipsLeastSide: Readonly<Record<LpipsNet, number>> = { alex: 31, vgg: 16, squeeze: 17 };

/** Names of the graph's input and outputs. */
export const lpipsNames = { pair: "pair", taps: "taps", map: (tap: number): string => `map_${tap}` } as const;

const [SHIFT, SCALE] = [
  [-0.03, -0.088, -0.188],
  [0.458, 0.448, 0.45],
];
const EPSILON = 1e-10;

/**
 * LPIPS 0.1 (Zhang et al., arXiv 1801.03924) of images of one size: from "pair", [2, 3, height, width] of [-1, 1], to
 * "taps", [1, taps], whose sum is the distance, and "map_0", "map_1" ..., [1, 1, h, w], of which they are the means. Tensor
 * names are torchvision's.
 * @param linear weights of the linear layer of each tap, by its channels
 * @throws FemoError E_GRAPH if the images are too small
 */
export function lpips(net: LpipsNet, height: number, width: number, linear: readonly Float32Array[]): Graph {
  const graph = new Graph();
  const perChannel = (values: ArrayLike<number>): Value =>
    graph.constant(Float32Array.from(values), [1, values.length, 1, 1]);
  const convolve = (x: Value, name: string, channels: number, kernel: number, options?: ConvOptions): Value => {
    const weight = graph.weight(`${name}.weight`, [channels, x.shape[1] as number, kernel, kernel]);
    return x.conv(weight, graph.weight(`${name}.bias`, [channels]), options).relu();
  };
  const layer = (x: Value, one: Exclude<Layer, "tap">): Value => {
    if ("pool" in one) return x.maxPool(one.pool, { stride: 2, ceil: one.ceil ?? false });
    const name = `features.${one.at}`;
    if ("conv" in one) return convolve(x, name, one.conv, one.kernel, one.options);
    const [squeeze, expand] = one.fire;
    const squeezed = convolve(x, `${name}.squeeze`, squeeze, 1);
    const small = convolve(squeezed, `${name}.expand1x1`, expand, 1);
    return small.concat([convolve(squeezed, `${name}.expand3x3`, expand, 3, { padding: 1 })], 1);
  };
  /** Each pixel's channels as a vector of length one; where nothing is, 0.  x: [2, C, h, w] */
  const unit = (x: Value): Value => x.div(x.mul(x).sum([1]).sqrt().add(graph.scalar(EPSILON)));

  const pair = graph.input(lpipsNames.pair, [2, 3, height, width]);
  let x = pair.sub(perChannel(SHIFT as number[])).div(perChannel(SCALE as number[]));
  const means: Value[] = [];
  for (const one of TRUNKS[net]) {
    if (one !== "tap") {
      x = layer(x, one);
      continue;
    }
    const [a, b] = unit(x).chunk(2, 0) as [Value, Value];
    const difference = a.sub(b);
    const weights = perChannel(linear[means.length] as Float32Array);
    const map = difference.mul(difference).mul(weights).sum([1]); // [1, 1, h, w]
    graph.output(lpipsNames.map(means.length), map);
    means.push(map.mean([2, 3]).reshape([1, 1]));
  }
  const [first, ...others] = means as [Value, ...Value[]];
  graph.output(lpipsNames.taps, first.concat(others, 1));
  return graph;
}

/** True for the tensors of torchvision's files that LPIPS has no use for. */
export const lpipsIgnores = (name: string): boolean => name.startsWith("classifier.");

/** The name of a tap's linear layer in the files of the package. */
export const lpipsLinear = (tap: number): string => `lin${tap}.model.1.weight`;
