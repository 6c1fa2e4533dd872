import { expect, test } from "vitest";
import { traceWhole } from "../../src/graph/index.js";
import { dit, ditConfigFromJson } from "../../src/models/dit.js";
import { type GraphKind, ModelRunner } from "../../src/pipelines/model-runner.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Checkpoint } from "../../src/weights/index.js";

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
const checkpoint = Checkpoint.fromTensors(
  "f.safetensors",
  traceWhole(model)
    .graph.reachable()
    .weights.map(({ name, shape }) => ({
      name,
      shape: shape as number[],
      dtype: "float32",
      file: "/w/f.safetensors",
      offset: 0,
      byteLength: 4 * (shape as number[]).reduce((a, b) => a * b, 1),
    })),
);
const full = (granularity: "module" | "block" | "stack"): GraphKind => ({ kind: "full", granularity });

/** Lets releases that nobody waits for happen. */
const settled = () => turns(100);

test("a graph is loaded once, and of three whole ones the least recently used makes room", async () => {
  const { engine, count } = countingEngine();
  const runner = new ModelRunner(model, checkpoint, engine);
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
  const runner = new ModelRunner(model, checkpoint, engine);
  await runner.load({ kind: "step" });
  await runner.load(full("module"));
  await settled();
  expect(count).toEqual({ loads: 2, releases: 1 });
  await runner.load({ kind: "step" });
  await runner.load(full("stack"));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
});

test("a graph asked for twice at once is loaded once, and none that made room is forgotten", async () => {
  const { engine, count } = countingEngine();
  const runner = new ModelRunner(model, checkpoint, engine);
  const all = ["module", "block", "stack", "stack", "stack"] as const;
  await Promise.all(all.map((granularity) => runner.load(full(granularity))));
  await settled();
  expect(count).toEqual({ loads: 3, releases: 1 });
});
