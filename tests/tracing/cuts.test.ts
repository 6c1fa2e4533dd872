import { beforeAll, describe, expect, test } from "vitest";
import type { HostTensor } from "../../src/runtime/engine.js";
import { type Cut, canonical, graphNames, type Model, traceCut } from "../../src/tracing/index.js";
import { type Feeds, goldenFolder, type OpenModel, openModel } from "../models/tiny.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const CHAIN = "transformer_blocks";
const rounding = 2e-6; // of float32, relative to the largest element
let tiny: OpenModel;
let step: Feeds;
let whole: number[];
let depth: number;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  depth = tiny.config.numLayers;
  const { numAttentionHeads, attentionHeadDim, inChannels, sampleSize } = tiny.config;
  expect(numAttentionHeads * attentionHeadDim).toBeGreaterThan(0);
  const tables = await tiny.tables([900, 100], [0, 3]);
  step = { ...tables, sample: noise([2, inChannels, sampleSize, sampleSize], 1), pair: integers([2], [1, 0]) };
  whole = numbers((await tiny.run(traceCut(tiny.model, {}), step)).output);
});

describe("a chain can end and begin between any two blocks", () => {
  test.each([0, 1, 2])("before block %i", async (block) => {
    if (block > depth) return;
    const place = { chain: CHAIN, block };
    const front = traceCut(tiny.model, { to: place });
    const back = traceCut(tiny.model, { from: place });
    expect(front.end).toEqual(back.begin);
    expect(front.graph.outputs.map(({ name }) => name)).toEqual(front.end);
    const streams = await tiny.run(front, step);
    const { output } = await tiny.run(back, { ...step, ...streams });
    expect(relativeError(numbers(output), whole)).toBeLessThan(rounding);
    const weights = (cut: Cut) =>
      traceCut(tiny.model, cut)
        .graph.reachable()
        .weights.map(({ name }) => name);
    const both = [...weights({ to: place }), ...weights({ from: place })];
    expect(new Set(both).size).toBe(both.length); // no block's work is done twice
  });

  test("forecast from its own change, a run of blocks is that run", async () => {
    const region = { chain: CHAIN, blocks: [0, depth] as const };
    const full = traceCut(tiny.model, { capture: region });
    expect(full.captured.map(({ name }) => name)).toEqual([`${CHAIN}.0-${depth - 1}`]);
    const truth = await tiny.run(full, step);
    const [site] = full.captured as [(typeof full.captured)[number]];
    const { data } = truth[graphNames.feature(site.name)] as HostTensor;
    const forecast = traceCut(tiny.model, { forecast: region, state: { history: 1, averages: 0 } });
    const state = { [graphNames.history(site.name, 0)]: floats([2, 1, site.elements as number], data as Float32Array) };
    const again = await tiny.run(forecast, { ...step, ...state, combine: floats([1, 2, 1, 1], [1, 1]) });
    expect(relativeError(numbers(again.output), whole)).toBeLessThan(rounding);
  });
});

test("sites can be chosen by name", () => {
  const site = `${CHAIN}.0.attn1`;
  const { captured } = traceCut(tiny.model, { capture: { sites: [site] } });
  expect(captured.map(({ name }) => name)).toEqual([site]);
});

test("a mark is given out beside the output", async () => {
  const marked: Model = {
    ...tiny.model,
    build: (t) => t.mark("doubled", tiny.model.build(t)).add(t.graph.scalar(0)),
  };
  const outputs = await tiny.run(traceCut(marked, { give: ["doubled"] }), step);
  expect(numbers(outputs[graphNames.mark("doubled")])).toEqual(numbers(outputs.output));
});

test.each<[string, Cut]>([
  ['level "attic"', { capture: { level: "attic" } }],
  ['site "nowhere"', { capture: { sites: ["nowhere"] } }],
  ['mark "x"', { give: ["x"] }],
  ['chain "other"', { to: { chain: "other", block: 0 } }],
  ["expected a place from 0 to", { from: { chain: CHAIN, block: 99 } }],
  ["expected a place from 0 to", { capture: { chain: CHAIN, blocks: [0, 99] } }],
  ["shape of its state", { forecast: { level: "stack" } }],
])("what the model does not have is an error that names it: %s", async (words, cut) => {
  expect(await femoError("E_GRAPH", () => traceCut(tiny.model, cut))).toContain(words);
});

test("the same cut has the same key whatever the order of its fields", () => {
  const a: Cut = { capture: { level: "stack" }, give: ["x"], state: { history: 1, averages: 2 } };
  const b: Cut = { state: { averages: 2, history: 1 }, give: ["x"], capture: { level: "stack" } };
  expect(canonical(a)).toBe(canonical(b));
  expect(canonical(a)).not.toBe(canonical({ ...a, give: ["y"] }));
  expect(canonical({ level: "a" })).not.toBe(canonical({ sites: ["a"] }));
});

describe("a graph that begins or ends inside the model", () => {
  const middle = { chain: CHAIN, block: 1 };
  const names = (sites: readonly { name: string }[]) => sites.map(({ name }) => name);
  const state = { history: 1, averages: 0 };

  test("has the features between, and no others", () => {
    const all = names(traceCut(tiny.model, { capture: { level: "module" } }).captured);
    const front = traceCut(tiny.model, { to: middle, capture: { level: "module" } });
    const back = traceCut(tiny.model, { from: middle, capture: { level: "module" } });
    expect(names(front.captured).length).toBeGreaterThan(0);
    expect([...names(front.captured), ...names(back.captured)]).toEqual(all);
    expect(front.graph.outputs.map(({ name }) => name)).toEqual([
      ...names(front.captured).map(graphNames.feature),
      ...front.end,
    ]);
    expect(names(traceCut(tiny.model, { from: middle, forecast: { level: "module" }, state }).forecasts)).toEqual(
      names(back.captured),
    );
  });

  test("has the output if it does not end, and a change only if both its ends are in it", async () => {
    expect(names(traceCut(tiny.model, { from: middle, capture: { level: "output" } }).captured)).toEqual(["output"]);
    for (const cut of [{ from: middle }, { to: middle }]) {
      const message = await femoError("E_GRAPH", () => traceCut(tiny.model, { ...cut, capture: { level: "stack" } }));
      expect(message).toContain("between the places at which the graph begins and ends");
    }
  });

  test("may do both at places of their own", async () => {
    const [first, last] = [
      { chain: CHAIN, block: 0 },
      { chain: CHAIN, block: depth },
    ];
    const whole = traceCut(tiny.model, { from: first, to: last });
    expect(whole.begin).not.toEqual(whole.end);
    const start = await tiny.run(traceCut(tiny.model, { to: first }), step);
    const streams = await tiny.run(whole, { ...step, ...start });
    const wanted = await tiny.run(traceCut(tiny.model, { to: last }), step);
    for (const name of whole.end) {
      expect(relativeError(numbers(streams[name]), numbers(wanted[name]))).toBeLessThan(rounding);
    }
  });
});

test("a graph that captures one region and forecasts another keeps them apart", () => {
  const [a, b] = [`${CHAIN}.0.attn1`, `${CHAIN}.1.attn1`];
  const { captured, forecasts } = traceCut(tiny.model, {
    capture: { sites: [b] },
    forecast: { sites: [a] },
    state: { history: 1, averages: 0 },
  });
  expect([captured, forecasts].map((sites) => sites.map(({ name }) => name))).toEqual([[b], [a]]);
});
