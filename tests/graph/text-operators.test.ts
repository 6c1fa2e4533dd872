import { describe, expect, test } from "vitest";
import { type AttentionOptions, countFlops, Graph, type Value } from "../../src/graph/index.js";
import { engineForTests, evaluate, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();

/** What attention is, in float64. Batches of two, heads of three. */
const [BATCH, HEADS, HEAD] = [2, 2, 3];
const WIDTH = HEADS * HEAD;
function attention(
  [q, k, v, bias]: readonly number[][],
  tokens: number,
  biasShape: readonly number[],
  { causal = false, scale = HEAD ** -0.5 }: AttentionOptions,
): number[] {
  const out: number[] = [];
  const at = (x: number[] | undefined, b: number, t: number, h: number, d: number): number =>
    x?.[(b * tokens + t) * WIDTH + h * HEAD + d] as number;
  const added = (b: number, h: number, t: number, s: number): number => {
    const [batches, heads] = biasShape as [number, number];
    return bias?.[(((b % batches) * heads + (h % heads)) * tokens + t) * tokens + s] ?? 0;
  };
  for (let b = 0; b < BATCH; b++) {
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < HEADS; h++) {
        const keys = causal ? t + 1 : tokens;
        const weights = Array.from({ length: keys }, (_, s) => {
          let score = 0;
          for (let d = 0; d < HEAD; d++) score += at(q, b, t, h, d) * at(k, b, s, h, d);
          return Math.exp(scale * score + added(b, h, t, s));
        });
        const total = weights.reduce((x, y) => x + y);
        for (let d = 0; d < HEAD; d++) {
          out.push(weights.reduce((sum, weight, s) => sum + (weight / total) * at(v, b, s, h, d), 0));
        }
      }
    }
  }
  return out;
}

describe("attention equals its definition in float64", () => {
  const options: readonly AttentionOptions[] = [{}, { causal: true }, { scale: 1 }, { causal: true, scale: 0.3 }];
  const biases = [[], [1, 1], [1, HEADS], [BATCH, 1], [BATCH, HEADS]];
  test.each(options)("%j, with biases of every shape and none", async (option) => {
    const graph = new Graph();
    // 70 keys: more than what is computed at a time.
    const feeds: Record<string, ReturnType<typeof noise>> = {};
    const cases = [3, 70].flatMap((tokens) => biases.map((bias) => ({ tokens, bias })));
    for (const [i, { tokens, bias }] of cases.entries()) {
      const [q, k, v] = ["q", "k", "v"].map((name, n) => {
        feeds[`${name}${i}`] = noise([BATCH, tokens, WIDTH], 10 * i + n);
        return graph.input(`${name}${i}`, [BATCH, tokens, WIDTH]);
      }) as [Value, Value, Value];
      const shape = [...bias, tokens, tokens];
      if (bias.length > 0) feeds[`b${i}`] = noise(shape, 10 * i + 3);
      const added = bias.length > 0 ? { bias: graph.input(`b${i}`, shape) } : {};
      graph.output(`y${i}`, q.attention(k, v, HEADS, { ...option, ...added }));
    }
    const found = await evaluate(engine, graph, feeds);
    for (const [i, { tokens, bias }] of cases.entries()) {
      const inputs = ["q", "k", "v", ...(bias.length > 0 ? ["b"] : [])].map((name) => numbers(feeds[name + i]));
      const wanted = attention(inputs, tokens, bias, option);
      expect(relativeError(numbers(found[`y${i}`]), wanted), `bias ${bias}, ${tokens} tokens`).toBeLessThan(1e-6);
    }
  });
});

test("quickGelu equals its definition in float64", async () => {
  const graph = new Graph();
  graph.output("y", graph.input("x", [500]).quickGelu());
  const x = noise([500], 1);
  (x.data as Float32Array).set([-90, 90, 0]);
  const { y } = await evaluate(engine, graph, { x });
  const wanted = numbers(x).map((value) => value / (1 + Math.exp(-1.702 * value)));
  expect(relativeError(numbers(y), wanted)).toBeLessThan(1e-6);
});

test("positions along an axis of unknown size, and integers that are clamped", async () => {
  const graph = new Graph();
  const at = graph.input("x", ["rows", "columns"], "int64").positions(1);
  expect([at.shape, at.dtype]).toEqual([["columns"], "int64"]);
  graph.output("positions", at);
  graph.output("clamped", at.clampIntegers(2, 4));
  const { positions, clamped } = await evaluate(engine, graph, { x: integers([1, 7], Array(7).fill(9)) });
  expect([positions?.dims, numbers(positions)]).toEqual([[7], [0, 1, 2, 3, 4, 5, 6]]);
  expect(numbers(clamped)).toEqual([2, 2, 2, 3, 4, 4, 4]);
});

describe("a bias that does not fit is an error that names it", () => {
  test.each([
    [[2, 5, 5]],
    [[2, 2, 5]],
    [[3, 2, 5, 5]],
    [[1, 3, 5, 5]],
    [[1, 2, 1, 5]],
    [[1, 2, 5, 4]],
    [["batch", 2, 5, 5]],
  ])("%j", async (shape) => {
    const graph = new Graph();
    const x = graph.input("x", [2, 5, 4]);
    const message = await femoError("E_GRAPH", () => x.attention(x, x, 2, { bias: graph.input("b", shape) }));
    expect(message).toContain(`[${shape.join(", ")}]`);
    expect(message).toContain("[2, 2, 5, 5]");
  });
});

test.each<[string, (x: Value) => Value, number]>([
  // scores and values, 2 x 2 for each of 7 x 5 x 5 pairs and 4 channels; softmax 5, and 1 for the bias, of two heads
  [
    "attention with a bias",
    (x) => x.attention(x, x, 2, { bias: x.graph.constant(new Float32Array(50), [1, 2, 5, 5]), scale: 1 }),
    7 * 25 * (4 * 4 + 2 * 6),
  ],
  [
    "causal attention, of which all is counted",
    (x) => x.attention(x, x, 2, { causal: true }),
    7 * 25 * (4 * 4 + 2 * 5),
  ],
  ["quickGelu", (x) => x.quickGelu(), 7 * 20 * 6],
  ["positions", (x) => x.positions(0), 0],
  ["clamped positions", (x) => x.positions(0).clampIntegers(0, 3), 7 * 2],
])("operations of %s", (_, build, flops) => {
  const graph = new Graph();
  graph.output("y", build(graph.input("x", ["batch", 5, 4])));
  expect(countFlops(graph, { batch: 7 })).toBe(flops);
});
