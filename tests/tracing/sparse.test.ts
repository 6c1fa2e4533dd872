import { beforeAll, describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import { dit, ditXL2 } from "../../src/models/dit.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import {
  type Cut,
  computesAll,
  type Kept,
  type Sparse,
  sparseAttention,
  sparseMlp,
  traceCut,
} from "../../src/tracing/index.js";
import { type Feeds, goldenFolder, type OpenModel, openModel } from "../models/tiny.js";
import { engineForTests, evaluate, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const rounding = 5e-6; // of float32, relative to the largest element
const [batch, tokens, width, wide, heads] = [2, 12, 8, 20, 2];
const sparse: Sparse = {
  step: "keep",
  mlpColumns: 0.3,
  mlpGroup: 5, // the next fewer that divide 12 are 4
  attentionKeys: 0.25,
  attentionGroup: 6,
  denseLayers: 0,
};
const range = (size: number): number[] => Array.from({ length: size }, (_, i) => i);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** One layer at a step; what it leaves is among the outputs, and what it takes is fed. */
async function layer(build: (graph: Graph, kept: Kept) => Value, feeds: Feeds): Promise<Feeds> {
  const graph = new Graph();
  const kept: Kept = {
    take: (part, shape, dtype) => graph.input(part, shape, dtype),
    leave: (part, value) => graph.output(part, value),
  };
  graph.output("y", build(graph, kept));
  return evaluate(engine, graph, feeds);
}

describe("an MLP", () => {
  const weights = {
    w1: noise([wide, width], 1),
    b1: noise([wide], 2),
    w2: noise([width, wide], 3),
    b2: noise([width], 4),
  };
  const run = (x: HostTensor, how: Sparse, kept: Feeds = {}) =>
    layer(
      (graph, k) => {
        const of = (name: keyof typeof weights) => graph.input(name, weights[name].dims);
        const layers = {
          widen: [of("w1"), of("b1")] as const,
          activate: (hidden: Value) => hidden.relu(),
          narrow: [of("w2"), of("b2")] as const,
        };
        return sparseMlp(graph.input("x", ["batch", tokens, width]), layers, how, k);
      },
      { ...kept, ...weights, x },
    );

  const row = (matrix: HostTensor, i: number): number[] => {
    const size = matrix.dims.at(-1) as number;
    return numbers(matrix).slice(i * size, (i + 1) * size);
  };
  const dot = (a: readonly number[], b: readonly number[]): number => sum(a.map((x, i) => x * (b[i] as number)));
  const [b1, b2] = [numbers(weights.b1), numbers(weights.b2)];
  /** Pre-activations of a token. */
  const hidden = (x: HostTensor, token: number): number[] =>
    range(wide).map((i) => dot(row(weights.w1, i), row(x, token)) + (b1[i] as number));
  const narrowed = (activations: readonly number[]): number[] =>
    range(width).map((i) => dot(row(weights.w2, i), activations) + (b2[i] as number));
  const relu = (values: readonly number[]): number[] => values.map((x) => Math.max(0, x));

  const [then, now] = [noise([batch, tokens, width], 5), noise([batch, tokens, width], 6)];

  test("that keeps is the MLP as it is", async () => {
    const wanted = range(batch * tokens).flatMap((token) => narrowed(relu(hidden(then, token))));
    expect(relativeError(numbers((await run(then, sparse)).y), wanted)).toBeLessThan(rounding);
  });

  test("that corrects has the neurons anew whose mean in each group has changed most, and the others as they were", async () => {
    const group = 4;
    const wanted = range((batch * tokens) / group).flatMap((g) => {
      const own = range(group).map((i) => g * group + i);
      const mean = (x: HostTensor, i: number) => sum(own.map((token) => hidden(x, token)[i] as number)) / group;
      const change = range(wide).map((i) => Math.abs(mean(now, i) - mean(then, i)));
      const chosen = range(wide)
        .sort((a, b) => (change[b] as number) - (change[a] as number))
        .slice(0, 6); // 0.3 of 20
      return own.flatMap((token) => {
        const [old, fresh] = [hidden(then, token), hidden(now, token)];
        return narrowed(relu(range(wide).map((i) => (chosen.includes(i) ? fresh : old)[i] as number)));
      });
    });
    const { y } = await run(now, { ...sparse, step: "correct" }, await run(then, sparse));
    expect(relativeError(numbers(y), wanted)).toBeLessThan(rounding);
  });

  test("with all neurons anew is the MLP of the step", async () => {
    const all = { ...sparse, mlpColumns: 1 };
    const { y } = await run(now, { ...all, step: "correct" }, await run(then, all));
    const whole = await run(now, all);
    expect(relativeError(numbers(y), numbers(whole.y))).toBeLessThan(rounding);
  });
});

describe("attention", () => {
  const run = (seed: number, how: Sparse, kept: Feeds = {}) =>
    layer(
      (graph, k) => {
        const [q, key, v] = ["q", "k", "v"].map((name) => graph.input(name, ["batch", tokens, width]));
        return sparseAttention([q, key, v] as [Value, Value, Value], heads, how, k);
      },
      { ...kept, ...inputs(seed) },
    );
  const inputs = (seed: number): Feeds =>
    Object.fromEntries(["q", "k", "v"].map((name, i) => [name, noise([batch, tokens, width], seed + i)]));

  /** Softmax of a query over keys, and what it makes of the values: of one image and head. */
  function attend(feeds: Feeds, image: number, head: number, query: number, over: readonly number[]) {
    const size = width / heads;
    const part = (name: string, token: number): number[] => {
      const start = (image * tokens + token) * width + head * size;
      return numbers(feeds[name]).slice(start, start + size);
    };
    const q = part("q", query);
    const exps = over.map((key) => Math.exp(sum(part("k", key).map((x, i) => x * (q[i] as number))) / Math.sqrt(size)));
    const weights = exps.map((x) => x / sum(exps));
    const value = range(size).map((i) =>
      sum(over.map((key, j) => (weights[j] as number) * (part("v", key)[i] as number))),
    );
    return { weights, value };
  }

  /** Results of every query in the order of the tensor. */
  const ofAll = (result: (image: number, query: number, head: number) => number[]): number[] =>
    range(batch).flatMap((image) =>
      range(tokens).flatMap((query) => range(heads).flatMap((head) => result(image, query, head))),
    );
  const everyKey = range(tokens);

  test("that keeps is attention as it is", async () => {
    const wanted = ofAll((image, query, head) => attend(inputs(1), image, head, query, everyKey).value);
    expect(relativeError(numbers((await run(1, sparse)).y), wanted)).toBeLessThan(rounding);
  });

  test("that corrects attends to the keys that got most in each group of queries, and adds what they lacked", async () => {
    const [then, now] = [inputs(1), inputs(11)];
    const chosen = (image: number, query: number, head: number): number[] => {
      const group = range(6).map((i) => Math.floor(query / 6) * 6 + i);
      const attention = group.map((other) => attend(then, image, head, other, everyKey).weights);
      const totals = everyKey.map((key) => sum(attention.map((weights) => weights[key] as number)));
      return everyKey.toSorted((a, b) => (totals[b] as number) - (totals[a] as number)).slice(0, 3); // 0.25 of 12
    };
    const wanted = ofAll((image, query, head) => {
      const keys = chosen(image, query, head);
      const [dense, few] = [everyKey, keys].map((over) => attend(then, image, head, query, over).value);
      return attend(now, image, head, query, keys).value.map(
        (x, i) => x + (dense?.[i] as number) - (few?.[i] as number),
      );
    });
    const { y } = await run(11, { ...sparse, step: "correct" }, await run(1, sparse));
    expect(relativeError(numbers(y), wanted)).toBeLessThan(rounding);
  });

  test("to all keys is that of the step", async () => {
    const all = { ...sparse, attentionKeys: 1 };
    const { y } = await run(11, { ...all, step: "correct" }, await run(1, all));
    expect(relativeError(numbers(y), numbers((await run(11, all)).y))).toBeLessThan(rounding);
  });
});

describe("a model", () => {
  let tiny: OpenModel;
  let step: Feeds;
  beforeAll(async () => {
    tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
    const { inChannels, sampleSize } = tiny.config;
    const tables = await tiny.tables([900, 100], [0, 3]);
    step = { ...tables, sample: noise([2, inChannels, sampleSize, sampleSize], 1), pair: integers([2], [1, 0]) };
  });
  const cut = (how: Partial<Sparse>): Cut => ({ sparse: { ...sparse, ...how } });

  test("leaves at a step that keeps what one that corrects takes, and gives what it gives plainly", async () => {
    const [keep, correct] = [traceCut(tiny.model, cut({})), traceCut(tiny.model, cut({ step: "correct" }))];
    expect(keep.leaves.length).toBeGreaterThan(0);
    expect(correct.takes.toSorted()).toEqual(keep.leaves.toSorted());
    const [plain, kept] = [await tiny.run(traceCut(tiny.model, {}), step), await tiny.run(keep, step)];
    expect(relativeError(numbers(kept.output), numbers(plain.output))).toBeLessThan(rounding);
    const again = await tiny.run(correct, { ...step, ...kept });
    expect(relativeError(numbers(again.output), numbers(plain.output))).toBeLessThan(rounding); // nothing has changed
  });

  test("with all shares at 1 is corrected to what it is", async () => {
    const all = { mlpColumns: 1, attentionKeys: 1 };
    const kept = await tiny.run(traceCut(tiny.model, cut(all)), step);
    const later = { ...step, pair: integers([2], [0, 1]) };
    const { output } = await tiny.run(traceCut(tiny.model, cut({ ...all, step: "correct" })), { ...later, ...kept });
    const plain = await tiny.run(traceCut(tiny.model, {}), later);
    expect(relativeError(numbers(output), numbers(plain.output))).toBeLessThan(rounding);
    expect(relativeError(numbers(kept.output), numbers(plain.output))).toBeGreaterThan(1e-3);
  });

  test("keeps nothing of its first layers, whichever part of it runs", () => {
    const { leaves } = traceCut(tiny.model, cut({ denseLayers: 1 }));
    expect(leaves.length).toBeGreaterThan(0);
    expect(leaves.filter((name) => name.includes("transformer_blocks.0."))).toEqual([]);
    const from = { chain: "transformer_blocks", block: 1 };
    expect(traceCut(tiny.model, { ...cut({ denseLayers: 1 }), from }).leaves).toEqual(leaves);
    expect(traceCut(tiny.model, cut({ denseLayers: tiny.config.numLayers })).leaves).toEqual([]);
  });

  test("computes everything when it keeps, and not when it corrects", () => {
    expect([computesAll(cut({})), computesAll(cut({ step: "correct" }))]).toEqual([true, false]);
  });
});

describe("the work of a step that corrects DiT-XL/2", () => {
  const model = dit(ditXL2);
  const flops = (how?: Partial<Sparse>): number => {
    const whole: Sparse = { ...sparse, mlpGroup: 128, attentionGroup: 128, denseLayers: 0, step: "correct", ...how };
    return countFlops(traceCut(model, how ? { sparse: whole } : {}).graph, { batch: 1, pairs: 1 });
  };

  test("follows the share of neurons", () => {
    const [few, more] = [flops({ mlpColumns: 0.25 }), flops({ mlpColumns: 0.5 })];
    const mlps = 28 * 2 * 2 * 256 * 1152 * 4608;
    // Two products of a quarter of the neurons, their activations, and what is added and subtracted.
    expect((more - few) / (mlps / 4)).toBeCloseTo(1, 2);
  });

  test("follows the share of keys", () => {
    const [few, more] = [flops({ attentionKeys: 0.25 }), flops({ attentionKeys: 0.5 })];
    const attention = 28 * 64 * (2 * 2 * 256 * 1152 + 5 * 16 * 256);
    expect((more - few) / attention).toBeCloseTo(1, 6);
  });

  test("is that of a whole step in layers that are dense, and less in others", () => {
    expect(flops({ denseLayers: 28 })).toBe(flops());
    expect(flops({}) / flops()).toBeLessThan(0.6);
    expect(flops({ denseLayers: 14 }) / flops()).toBeCloseTo((1 + flops({}) / flops()) / 2, 2);
  });
});

test("tokens whose number is not known beforehand are an error", async () => {
  const graph = new Graph();
  const x = graph.input("x", ["batch", "tokens", width]);
  const kept: Kept = { take: () => x, leave: () => {} };
  const message = await femoError("E_GRAPH", () => sparseAttention([x, x, x], heads, sparse, kept));
  expect(message).toContain("expected [batch, tokens, width] of known sizes, found [batch, tokens, 8]");
});
