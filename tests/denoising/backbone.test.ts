import { expect, test } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { dit, ditConfigFromJson } from "../../src/models/dit.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import type { Cut } from "../../src/tracing/index.js";
import { Checkpoint } from "../../src/weights/index.js";
import { tensorsOf } from "../models/tiny.js";

/** Later, but as soon as may be: by turns of the event loop, of which a slow machine takes as many. */
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

/** An engine that only counts what is loaded, and takes its time. */
function countingEngine() {
  const count = { loads: 0, releases: 0 };
  const engine = {
    async load() {
      count.loads++;
      await turns(1);
      return {
        run: () => Promise.reject(new Error("not part of this test")),
        async release() {
          count.releases++;
          await turns(1);
        },
      };
    },
  } as unknown as Engine;
  return { engine, count };
}

const model = dit(ditConfigFromJson({ num_layers: 1, num_attention_heads: 2, attention_head_dim: 4 }));
const checkpoint = Checkpoint.fromTensors("f.safetensors", tensorsOf(model));
const full = (level: "module" | "block" | "stack"): Cut => ({ capture: { level } });
const whole = new Backbone(model, checkpoint, new Sessions({} as Engine, 0)).cut({}).network.bytes;
/** Room for two graphs with all weights of a step, and not for three. */
const open = (engine: Engine) => new Backbone(model, checkpoint, new Sessions(engine, 2.5 * whole));

/** Lets releases that nobody waits for happen. */
const settled = () => turns(100);

test("a graph is loaded once, and when weights take more than there is room for, the least recently used makes room", async () => {
  const { engine, count } = countingEngine();
  const runner = open(engine);
  for (const granularity of ["module", "block", "module"] as const) await runner.load(full(granularity));
  await settled();
  expect(count).toEqual({ loads: 2, releases: 0 });
  await runner.load(full("stack")); // in place of block
  await runner.load(full("module"));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
});

test("a full step serves as a plain one, whose own graph then makes room", async () => {
  const { engine, count } = countingEngine();
  const runner = open(engine);
  await runner.load({});
  await runner.load(full("module"));
  await settled();
  expect(count).toEqual({ loads: 2, releases: 1 });
  await runner.load({});
  await runner.load(full("stack"));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
});

test("a graph asked for twice at once is loaded once, and none that made room is forgotten", async () => {
  const { engine, count } = countingEngine();
  const runner = open(engine);
  const all = ["module", "block", "stack", "stack", "stack"] as const;
  await Promise.all(all.map((granularity) => runner.load(full(granularity))));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
});

test("a graph in use is not freed, however little room there is", async () => {
  const { engine, count } = countingEngine();
  const sessions = new Sessions(engine, 0);
  const backbone = new Backbone(model, checkpoint, sessions);
  const { network } = backbone.cut(full("module"));
  await sessions.use(network, async () => {
    await backbone.load(full("block"));
    await backbone.load(full("stack"));
    await settled();
    expect(sessions.has(network)).toBe(true);
  });
  await settled();
  expect(count.loads).toBe(3);
  expect(count.releases).toBe(2); // the last that was used stays until another wants its place
});

test("graphs of small models stay, of large ones one: bytes count, not graphs", async () => {
  const { engine, count } = countingEngine();
  const [roomy, tight] = [new Sessions(engine, 100 * whole), new Sessions(engine, whole)];
  for (const level of ["module", "block", "stack"] as const) {
    await new Backbone(model, checkpoint, roomy).load(full(level));
  }
  await settled();
  expect(count).toEqual({ loads: 3, releases: 0 });
  for (const level of ["module", "block", "stack"] as const) {
    await new Backbone(model, checkpoint, tight).load(full(level));
  }
  await settled();
  expect(count).toEqual({ loads: 6, releases: 2 });
});

test("a graph that alone takes more than the limit stays beside small ones, which have the limit to themselves", async () => {
  const { engine, count } = countingEngine();
  const sessions = new Sessions(engine, whole / 2);
  const backbone = new Backbone(model, checkpoint, sessions);
  const forecast: Cut = { forecast: { level: "stack" }, state: { history: 1, averages: 0 } };
  const small = backbone.cut(forecast).network;
  expect(small.bytes).toBeGreaterThan(0);
  expect(small.bytes).toBeLessThan(whole / 2);
  const large = full("stack");
  for (const cut of [large, forecast, large, forecast]) await backbone.load(cut);
  await settled();
  expect(count).toEqual({ loads: 2, releases: 0 });
  await backbone.load(full("module"));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
  expect(sessions.has(small)).toBe(true);
});
