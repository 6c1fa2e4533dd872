import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { bindDim, bindShape } from "../../src/graph/index.js";
import { flux } from "../../src/models/flux.js";
import { fluxConfigFromJson } from "../../src/models/flux-config.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { type Cut, graphNames, type TracedGraph, traceCut } from "../../src/tracing/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import {
  engineForTests,
  evaluate,
  floats,
  integers,
  noise,
  numbers,
  relativeError,
  weightsOf,
} from "../runtime/helpers.js";
import { greatest } from "../tracing/token-reference.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const folder = fileURLToPath(new URL("../goldens/flux/tiny-dev", import.meta.url));
const config = fluxConfigFromJson(JSON.parse(readFileSync(`${folder}/transformer/config.json`, "utf8")));
const model = flux(config);
const size = { rows: 3, columns: 5, text: 4 };
const [IMAGE, TEXT] = [size.rows * size.columns, size.text];
const state = { history: 1, averages: 0 };
const rounding = 2e-6;

const module = { level: "module" } as const;
const everything = { any: [module, { level: "attention" }] } as const;
const doubles = ["transformer_blocks.0", "transformer_blocks.1"];
const singles = ["single_transformer_blocks.0", "single_transformer_blocks.1"];
/** What a step that computes chosen tokens takes as it was. */
const attentions = [
  ...doubles.flatMap((name) => [`${name}.attn.to_out`, `${name}.attn.to_add_out`]),
  ...singles.map((name) => `${name}.attn`),
];

let weights: ReturnType<typeof weightsOf>;
let step: Readonly<Record<string, HostTensor>>;
beforeAll(async () => {
  weights = weightsOf(await openCheckpoint(nodeFolder(folder), "transformer/diffusion_pytorch_model.safetensors"));
  const inputs = model.inputs.map(({ name, shape, values }, i) => {
    if (values) return [name, floats(bindShape(shape, size), values(size))] as const;
    return [name, noise([2, ...bindShape(shape, size)], i)] as const;
  });
  const feeds = Object.fromEntries(inputs);
  const [pairs, texts] = await Promise.all(
    (["pair", "condition"] as const).map((hoisted) =>
      evaluate(engine, traceCut(model, { hoisted }).graph, feeds, weights),
    ),
  );
  step = { ...feeds, ...pairs, ...texts, pair: integers([2], [0, 1]), condition: integers([2], [0, 1]) };
});

/** Runs a graph on features and attention that are noise, the same for a name in every graph. */
async function run(traced: TracedGraph, counts: readonly number[] = []) {
  const seedOf = (name: string) => [...name].reduce((sum, letter) => (31 * sum + letter.charCodeAt(0)) % 9973, 7);
  const kept = [...traced.forecasts, ...traced.chosen].map(({ name, elements }) => {
    return [graphNames.history(name, 0), noise([2, 1, bindDim(elements, size)], seedOf(name))] as const;
  });
  const inputs = new Map(traced.graph.reachable().inputs.map(({ name, shape }) => [name, shape]));
  const left = traced.takes.map((name) => {
    const dims = bindShape(inputs.get(name) ?? [], { ...size, batch: 2 });
    const data = name.startsWith("age")
      ? numbers(noise(dims, 1)).fill(0)
      : numbers(noise(dims, seedOf(name))).map(Math.abs);
    return [name, floats(dims, data)] as const;
  });
  const outputs = await evaluate(
    engine,
    traced.graph,
    {
      ...step,
      ...Object.fromEntries([...kept, ...left]),
      combine: floats([traced.forecasts.length, 2, 1, 1], new Array(2 * traced.forecasts.length).fill(1)),
      [graphNames.tokens]: integers([counts.length], counts),
      [graphNames.scoring]: floats([2], [0, 0]),
    },
    weights,
  );
  return { outputs, kept: Object.fromEntries(kept), left: Object.fromEntries(left) };
}
const cut = (fields: Cut): TracedGraph => traceCut(model, { state, ...fields });

test("a full step leaves what those that compute chosen tokens take", () => {
  const full = cut({ capture: everything, scores: true });
  const some = cut({ forecast: everything, tokens: module });
  expect([...some.takes].sort()).toEqual([...full.leaves].sort());
  const captured = full.captured.map(({ name }) => name).sort();
  expect([...some.forecasts, ...some.chosen].map(({ name }) => name).sort()).toEqual(captured);
  expect(some.forecasts.map(({ name }) => name).sort()).toEqual([...attentions].sort());
});

describe("a step that computes chosen tokens", () => {
  test("is exact once it computes all, but for the attention that it takes as it was", async () => {
    const some = cut({ forecast: everything, tokens: module });
    const all = some.chosen.map(({ shape }) => bindDim(shape[1] as string, size));
    expect(all).toEqual([IMAGE, TEXT, IMAGE, TEXT, IMAGE + TEXT, IMAGE + TEXT]);
    const found = await run(some, all);
    const wanted = await run(cut({ forecast: { sites: attentions } }));
    expect(relativeError(numbers(found.outputs.output), numbers(wanted.outputs.output))).toBeLessThan(rounding);
  });

  test("reuses everything if it computes none", async () => {
    const found = await run(cut({ forecast: everything, tokens: module }), new Array(6).fill(0));
    const wanted = await run(cut({ forecast: module }));
    expect(relativeError(numbers(found.outputs.output), numbers(wanted.outputs.output))).toBeLessThan(rounding);
  });

  test.each([
    ["transformer_blocks.0.ff", "transformer_blocks.0.attn", TEXT, IMAGE],
    ["transformer_blocks.0.ff_context", "transformer_blocks.0.attn", 0, TEXT],
    ["single_transformer_blocks.0.proj_out", "single_transformer_blocks.0.attn", 0, TEXT + IMAGE],
  ])("chooses those of %s that got the most attention, the text's first", async (site, attention, first, tokens) => {
    const before = {
      any: [{ sites: attentions }, { sites: doubles.flatMap((name) => [`${name}.ff`, `${name}.ff_context`]) }],
    };
    const some = cut({ forecast: before, tokens: { sites: [site] } });
    const others = { sites: before.any.flatMap(({ sites }) => sites).filter((name) => name !== site) };
    const exact = cut({ forecast: others, capture: { sites: [site] } });
    const [{ outputs, kept, left }, truth] = [await run(some, [3]), await run(exact)];
    for (const b of [0, 1]) {
      const own = (tensor: HostTensor | undefined): number[] => {
        const values = numbers(tensor);
        return values.slice((b * values.length) / 2, ((b + 1) * values.length) / 2);
      };
      const mass = own(left[graphNames.mass(attention)]).slice(first, first + tokens);
      const chosen = greatest(mass, 3);
      const [was, now] = [own(kept[graphNames.history(site, 0)]), own(truth.outputs[graphNames.feature(site)])];
      const width = was.length / tokens;
      const wanted = was.map((x, i) => (chosen.includes(Math.floor(i / width)) ? (now[i] as number) : x));
      expect(relativeError(own(outputs[graphNames.feature(site)]), wanted)).toBeLessThan(rounding);
    }
  });

  test("does not compute attention among them alone", async () => {
    const message = await femoError("E_GRAPH", () => cut({ tokens: module }));
    expect(message).toContain("single_transformer_blocks.0.attn: inside what chosen tokens go through");
  });
});
