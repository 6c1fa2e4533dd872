import * as z from "zod/mini";
import { Graph, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import { parseConfig, positive } from "./config.js";

/** What a classifier names of an image, such as its style, and the names it knows. */
export interface ClassifierHead {
  readonly name: string;
  readonly labels: readonly string[];
}

/** The CNNs of `training/` that judge avatars. */
export interface ImageClassifierConfig {
  /** Pixels along a side. */
  readonly imageSize: number;
  /** Channels after each convolution, at least two. */
  readonly widths: readonly number[];
  readonly heads: readonly ClassifierHead[];
  /** What heads see: the last map, or its mean. */
  readonly headInput: "map" | "mean";
}

const labels = z.array(z.string()).check(z.minLength(2));
const layer = z.looseObject({
  name: z.string(),
  out: positive,
  kernel: z.literal(3),
  stride: z.literal(2),
  padding: z.literal(1),
  activation: z.literal("relu"),
});
const schema = z.looseObject({
  imageSize: positive.check(z.maximum(4096)),
  layers: z.array(layer).check(z.minLength(2), z.maxLength(12)),
  classes: z.optional(labels),
  attributes: z.optional(z.record(z.string(), labels)),
});

/** The head of a classifier that has one. */
const CLASS = "class";

/** @throws FemoError E_CONFIG naming each bad field */
export function classifierConfigFromJson(json: unknown, file: string): ImageClassifierConfig {
  const either = schema.check(
    z.refine(
      ({ classes, attributes }) => (classes === undefined) !== (attributes === undefined),
      "expected either classes or attributes",
    ),
  );
  const { imageSize, layers, classes, attributes = {} } = parseConfig(either, json, file, "image classifier");
  const heads = classes ? [{ name: CLASS, labels: classes }] : [];
  return {
    imageSize,
    widths: layers.map(({ out }) => out),
    heads: [...heads, ...Object.entries(attributes).map(([name, labels]) => ({ name, labels }))],
    headInput: classes ? "mean" : "map",
  };
}

/** Names of inputs and outputs. */
export const classifierNames = {
  image: "image",
  other: "other",
  logits: (head: string): string => `logits_${head}`,
  /** Of the last convolution but one and of the last. */
  features: ["features_0", "features_1"],
  distance: "distance",
} as const;

/**
 * Names an image: from "image", [batch, 3, size, size] of [-1, 1], to the logits of each head, [batch, labels], and the
 * means of the last two maps, [batch, channels], in which Frechet distances are measured.
 */
export function imageClassifier(config: ImageClassifierConfig): Graph {
  const graph = new Graph();
  const maps = mapsOf(graph, config, graph.input(classifierNames.image, inputShape(config)));
  const means = maps.slice(-2).map((map) => map.mean([2, 3]).reshape([BATCH, map.shape[1] as number]));
  for (const [i, mean] of means.entries()) graph.output(classifierNames.features[i] as string, mean);
  const last = maps.at(-1) as Value;
  const [, channels, height, width] = last.shape as [unknown, number, number, number];
  const flat = channels * height * width;
  const seen = config.headInput === "mean" ? (means[1] as Value) : last.reshape([BATCH, flat]);
  for (const { name, labels } of config.heads) {
    const of = config.headInput === "mean" ? "linear" : `heads.${name}`;
    const weight = graph.weight(`${of}.weight`, [labels.length, seen.shape[1] as number]);
    graph.output(classifierNames.logits(name), seen.linear(weight, graph.weight(`${of}.bias`, [labels.length])));
  }
  return graph;
}

const EPSILON = 1e-10;

/**
 * How far images are from others, [batch, 1], as LPIPS measures it (arXiv 1801.03924, eq. 1) but in the maps of a
 * classifier and with all channels weighing the same: squares of differences of unit vectors, averaged over places and
 * summed over convolutions. From "image" and "other", [batch, 3, size, size] of [-1, 1].
 */
export function classifierDistance(config: ImageClassifierConfig): Graph {
  const graph = new Graph();
  /** Each place's channels as a vector of length one; where nothing is, 0. */
  const unit = (x: Value): Value => x.div(x.mul(x).sum([1]).sqrt().add(graph.scalar(EPSILON)));
  const [a, b] = [classifierNames.image, classifierNames.other].map((name) =>
    mapsOf(graph, config, graph.input(name, inputShape(config))),
  ) as [Value[], Value[]];
  const distances = a.map((map, i) => {
    const difference = unit(map).sub(unit(b[i] as Value));
    return difference.mul(difference).sum([1]).mean([2, 3]).reshape([BATCH, 1]);
  });
  graph.output(
    classifierNames.distance,
    distances.reduce((sum, one) => sum.add(one)),
  );
  return graph;
}

const inputShape = ({ imageSize }: ImageClassifierConfig) => [BATCH, 3, imageSize, imageSize];

function mapsOf(graph: Graph, { widths }: ImageClassifierConfig, image: Value): Value[] {
  const maps: Value[] = [];
  let x = image;
  for (const [i, width] of widths.entries()) {
    const weight = graph.weight(`convs.${i}.weight`, [width, x.shape[1] as number, 3, 3]);
    x = x.conv(weight, graph.weight(`convs.${i}.bias`, [width]), { padding: 1, stride: 2 }).relu();
    maps.push(x);
  }
  return maps;
}
