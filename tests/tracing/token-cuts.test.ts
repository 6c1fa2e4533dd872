import { beforeAll, describe, expect, test } from "vitest";
import type { HostTensor } from "../../src/runtime/engine.js";
import { type Cut, graphNames, type TracedGraph, traceCut } from "../../src/tracing/index.js";
import { type Feeds, goldenFolder, type OpenModel, openModel } from "../models/tiny.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { greatest, scoresOf } from "./token-reference.js";

const engine = engineForTests();
const CHAIN = "transformer_blocks";
const [B, T] = [2, 16]; // the tiny model has 4 x 4 tokens
const state = { history: 1, averages: 0 };
const module = { level: "module" } as const;
const attentions = [`${CHAIN}.0.attn1`, `${CHAIN}.1.attn1`];
const mlps = [`${CHAIN}.0.ff`, `${CHAIN}.1.ff`];
const choice = { ageWeight: 0.1, bonus: 0.6, cell: 2 };

let tiny: OpenModel;
let tables: Feeds;
/** What a full step leaves, by name. */
let kept: Readonly<Record<string, HostTensor>>;
let full: TracedGraph;
/** A step later, everything the model is fed. */
let later: Feeds;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  tables = await tiny.tables([900, 900, 880, 880, 860, 860, 840, 840], [0, 3, 0, 3, 0, 3, 0, 3]);
  full = traceCut(tiny.model, { capture: module, scores: true });
  kept = await tiny.run(full, stepFeeds(0));
  later = stepFeeds(1);
});
const stepFeeds = (step: number): Feeds => ({
  ...tables,
  sample: noise([B, tiny.config.inChannels, tiny.config.sampleSize, tiny.config.sampleSize], 1 + step),
  pair: integers([B], [2 * step, 2 * step + 1]),
});

/** What a graph takes of what was left: features, attention, ages. */
function taken(traced: TracedGraph, left: Readonly<Record<string, HostTensor>>, counts: readonly number[]): Feeds {
  const history = [...traced.forecasts, ...traced.chosen].map(({ name, elements }) => {
    const { data } = left[graphNames.feature(name)] as HostTensor;
    return [graphNames.history(name, 0), floats([B, 1, elements as number], data as Float32Array)];
  });
  const features = traced.forecasts.length;
  return {
    ...Object.fromEntries([...history, ...traced.takes.map((name) => [name, left[name]])]),
    [graphNames.combine]: floats([features, B, 1, 1], new Array(features * B).fill(1)),
    [graphNames.tokens]: integers([counts.length], counts),
    [graphNames.scoring]: floats([2], [choice.ageWeight, choice.bonus]),
  };
}
const partial = (cut: Cut): TracedGraph => traceCut(tiny.model, { cell: choice.cell, state, ...cut });
const own = (values: readonly number[], b: number): number[] =>
  values.slice((b * values.length) / B, ((b + 1) * values.length) / B);

test("a step that captures leaves how much attention each token got, and that all of them are new", () => {
  expect(full.leaves.toSorted()).toEqual([...attentions.map(graphNames.mass), ...mlps.map(graphNames.age)].toSorted());
  for (const name of attentions) {
    const mass = kept[graphNames.mass(name)];
    expect(mass?.dims).toEqual([B, T]);
    for (const b of [0, 1]) {
      const total = own(numbers(mass), b).reduce((a, c) => a + c, 0);
      expect(total).toBeCloseTo(1, 5);
    }
  }
  expect(mlps.flatMap((name) => numbers(kept[graphNames.age(name)]))).toEqual(new Array(2 * B * T).fill(0));
  expect(traceCut(tiny.model, { capture: module }).leaves).toEqual([]);
});

describe("a step that computes chosen tokens", () => {
  test("is exact once it computes all of them, but for the attention that it takes as it was", async () => {
    const some = partial({ forecast: module, tokens: module });
    expect(some.chosen.map(({ name }) => name)).toEqual(mlps);
    const exact = partial({ forecast: { sites: attentions } });
    const found = await tiny.run(some, { ...later, ...taken(some, kept, [T, T]) });
    const wanted = await tiny.run(exact, { ...later, ...taken(exact, kept, []) });
    expect(relativeError(numbers(found.output), numbers(wanted.output))).toBeLessThan(2e-6);
  });

  test("and is the plain step if it computes attention too", async () => {
    const some = partial({ tokens: module });
    const found = await tiny.run(some, { ...later, ...taken(some, kept, [T, T]) });
    const wanted = await tiny.run(traceCut(tiny.model, {}), later);
    expect(relativeError(numbers(found.output), numbers(wanted.output))).toBeLessThan(2e-6);
  });

  test("reuses everything if it computes none", async () => {
    const [some, none] = [partial({ forecast: module, tokens: module }), partial({ forecast: module })];
    const found = await tiny.run(some, { ...later, ...taken(some, kept, [0, 0]) });
    const wanted = await tiny.run(none, { ...later, ...taken(none, kept, []) });
    expect(relativeError(numbers(found.output), numbers(wanted.output))).toBeLessThan(2e-6);
    for (const name of mlps) {
      expect(numbers(found[graphNames.feature(name)])).toEqual(numbers(kept[graphNames.feature(name)]));
    }
  });

  test.each([0, 1])(
    "gives out the MLP of block %i: chosen tokens as they are now, the others as they were",
    async (block) => {
      const mlp = mlps[block] as string;
      const before = { sites: [...attentions, ...mlps.slice(0, block)] };
      const some = partial({ forecast: before, tokens: { sites: [mlp] } });
      const exact = partial({ forecast: before, capture: { sites: [mlp] } });
      const found = await tiny.run(some, { ...later, ...taken(some, kept, [5]) });
      const truth = await tiny.run(exact, { ...later, ...taken(exact, kept, []) });
      const [now, was] = [truth, kept].map((from) => numbers(from[graphNames.feature(mlp)])) as [number[], number[]];
      for (const b of [0, 1]) {
        const mass = own(numbers(kept[graphNames.mass(attentions[block] as string)]), b);
        const scores = scoresOf(mass, new Array(T).fill(0), { lambda: 0, bonus: choice.bonus, grid: [4, 4], cell: 2 });
        const chosen = greatest(scores, 5);
        const width = now.length / B / T;
        const wanted = own(now, b).map((x, i) =>
          chosen.includes(Math.floor(i / width)) ? x : (own(was, b)[i] as number),
        );
        expect(relativeError(own(numbers(found[graphNames.feature(mlp)]), b), wanted)).toBeLessThan(2e-6);
        const ages = own(numbers(found[graphNames.next(graphNames.age(mlp))]), b);
        expect(ages).toEqual(ages.map((_, t) => (chosen.includes(t) ? 0 : 1)));
      }
    },
  );

  test("chooses, over several steps, those that the reference does, in every MLP and sample", async () => {
    const some = partial({ forecast: module, tokens: module });
    const ages = mlps.map(() => [0, 1].map(() => new Array<number>(T).fill(0)));
    let left = kept;
    const chosenBefore = new Set<string>();
    for (const step of [1, 2, 3]) {
      const counts = [3 + step, 6 - step];
      const found = await tiny.run(some, { ...stepFeeds(step), ...taken(some, left, counts) });
      const next = mlps.map((name) => [
        graphNames.age(name),
        found[graphNames.next(graphNames.age(name))] as HostTensor,
      ]);
      left = { ...left, ...found, ...Object.fromEntries(next) };
      for (const [i, name] of mlps.entries()) {
        for (const b of [0, 1]) {
          const mass = own(numbers(kept[graphNames.mass(attentions[i] as string)]), b);
          const age = ages[i]?.[b] as number[];
          const options = { lambda: choice.ageWeight, bonus: choice.bonus, grid: [4, 4], cell: choice.cell } as const;
          const chosen = greatest(scoresOf(mass, age, options), counts[i] as number);
          age.forEach((steps, t) => {
            age[t] = chosen.includes(t) ? 0 : steps + 1;
          });
          expect(own(numbers(left[graphNames.age(name)]), b)).toEqual(age);
          chosenBefore.add(`${i} ${b} ${chosen}`);
        }
      }
    }
    expect(chosenBefore.size).toBe(3 * mlps.length * B); // ages move the choice from step to step
  });
});

describe("what is renewed", () => {
  const first = { ...module, within: { chain: CHAIN, blocks: [0, 1] } } as const;

  test("is computed whole, leaves its attention, and is new", async () => {
    const some = partial({ forecast: module, tokens: module, renew: first, scores: true });
    expect(some.renewed.map(({ name }) => name)).toEqual([attentions[0], mlps[0], mlps[1]]);
    expect(some.chosen.map(({ name }) => name)).toEqual([mlps[1]]);
    const found = await tiny.run(some, { ...later, ...taken(some, kept, [3]) });
    const truth = await tiny.run(full, later);
    for (const name of [graphNames.feature(attentions[0] as string), graphNames.feature(mlps[0] as string)]) {
      expect(relativeError(numbers(found[name]), numbers(truth[name]))).toBeLessThan(2e-6);
    }
    const mass = graphNames.mass(attentions[0] as string);
    expect(relativeError(numbers(found[mass]), numbers(truth[mass]))).toBeLessThan(2e-6);
    expect(numbers(found[graphNames.age(mlps[0] as string)])).toEqual(new Array(B * T).fill(0));
  });

  test("may lie before the place at which a graph begins", async () => {
    const end = { chain: CHAIN, block: 2 };
    const aside = traceCut(tiny.model, { from: end, renew: first, scores: true });
    const stream = await tiny.run(traceCut(tiny.model, { to: end }), stepFeeds(0));
    const found = await tiny.run(aside, { ...later, ...stream });
    const wanted = await tiny.run(traceCut(tiny.model, { from: end }), { ...later, ...stream });
    expect(numbers(found.output)).toEqual(numbers(wanted.output));
    const truth = await tiny.run(full, later);
    expect(aside.renewed.map(({ name }) => name)).toEqual([attentions[0], mlps[0]]);
    for (const { name } of aside.renewed) {
      const feature = graphNames.feature(name);
      expect(relativeError(numbers(found[feature]), numbers(truth[feature]))).toBeLessThan(2e-6);
    }
  });
});
