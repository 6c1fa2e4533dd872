import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Graph, toOnnx } from "../../src/graph/index.js";
import type { Engine } from "../../src/runtime/engine.js";
import { createNodeEngine } from "../../src/runtime/node.js";
import { femoError } from "../weights/helpers.js";
import { engineForTests, floats, numbers } from "./helpers.js";

const engine = engineForTests();

/** y = x + s; y can be held and fed back as s. */
const adder = (on: Engine) => {
  const graph = new Graph();
  graph.output("y", graph.input("x", ["n"]).add(graph.input("s", ["n"])));
  return on.load({ model: toOnnx(graph, () => undefined), weightsFolder: "." });
};

describe("tensors held by the engine", () => {
  test("accumulate over runs, without crossing the thread", async () => {
    const session = await adder(engine);
    await engine.holdZeros({ sum: [2] });
    for (let i = 1; i <= 5; i++) {
      const { outputs } = await session.run({
        feeds: { x: floats([2], [i, 10 * i]), s: { held: "sum" } },
        fetch: i < 5 ? [] : ["y"],
        hold: { y: "sum" },
      });
      if (i === 5) expect(numbers(outputs.y)).toEqual([15, 150]);
    }
    const { outputs } = await session.run({ feeds: { x: floats([2], [0, 0]), s: { held: "sum" } }, fetch: ["y"] });
    expect(numbers(outputs.y)).toEqual([15, 150]);
    await session.release();
  });

  test("start from zeros again, in any size, after holdZeros", async () => {
    const session = await adder(engine);
    for (const n of [3, 3, 2, 3]) {
      await engine.holdZeros({ again: [n] });
      for (let i = 0; i < 4; i++) {
        const x = floats([n], new Float32Array(n).fill(1));
        await session.run({ feeds: { x, s: { held: "again" } }, fetch: [], hold: { y: "again" } });
      }
      const x = floats([n], new Float32Array(n));
      const { outputs } = await session.run({ feeds: { x, s: { held: "again" } }, fetch: ["y"] });
      expect(numbers(outputs.y)).toEqual(new Array(n).fill(4));
    }
  });

  test("are read before they are replaced: the next value is never written over the last", async () => {
    const graph = new Graph();
    graph.output("y", graph.input("u", [3, 3]).matMul(graph.input("s", [3, "n"])));
    const session = await engine.load({ model: toOnnx(graph, () => undefined), weightsFolder: "." });
    const n = 500;
    const start = Array.from({ length: 3 * n }, (_, i) => i);
    const u = floats([3, 3], [0, 1, 0, 0, 0, 1, 1, 0, 0]); // rows move up by one
    await session.run({ feeds: { u, s: floats([3, n], start) }, fetch: [], hold: { y: "rows" } });
    for (let i = 2; i <= 7; i++) {
      const { outputs } = await session.run({
        feeds: { u, s: { held: "rows" } },
        fetch: ["y"],
        hold: { y: "rows" },
      });
      expect(numbers(outputs.y)).toEqual(start.map((_, at) => start[(at + i * n) % (3 * n)]));
    }
  });

  test("are gone once freed", async () => {
    const session = await adder(engine);
    await engine.holdZeros({ brief: [1] });
    await engine.free(["brief", "never held"]);
    const message = await femoError("E_RUNTIME", () =>
      session.run({ feeds: { x: floats([1], [1]), s: { held: "brief" } }, fetch: ["y"] }),
    );
    expect(message).toContain('"brief"');
  });
});

test("calls are answered in order, and a failure leaves the engine usable", async () => {
  const session = await adder(engine);
  const run = (x: number[], s: number[]) =>
    session.run({ feeds: { x: floats([x.length], x), s: floats([s.length], s) }, fetch: ["y"] });
  const results = await Promise.allSettled([run([1], [2]), run([1, 2], [1, 2, 3]), run([3], [4])]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  const last = results[2] as PromiseFulfilledResult<Awaited<ReturnType<typeof run>>>;
  expect(numbers(last.value.outputs.y)).toEqual([7]);
});

test("bytes that are no model, and a session that was released, are E_RUNTIME", async () => {
  const load = () => engine.load({ model: Uint8Array.of(1, 2, 3), weightsFolder: "." });
  await femoError("E_RUNTIME", load);
  const session = await adder(engine);
  await session.release();
  const x = floats([1], [1]);
  expect(await femoError("E_RUNTIME", () => session.run({ feeds: { x, s: x }, fetch: ["y"] }))).toContain("not loaded");
});

test("a closed engine refuses every call", async () => {
  const brief = createNodeEngine({ threads: 1 });
  const session = await adder(brief);
  await brief.close();
  const x = floats([1], [1]);
  expect(await femoError("E_RUNTIME", () => session.run({ feeds: { x, s: x }, fetch: ["y"] }))).toContain("closed");
  await femoError("E_RUNTIME", () => brief.holdZeros({ a: [1] }));
});

// Stopping the thread inside a run would abort the process: tried in a process of its own.
test("closing while a graph runs rejects the run and lets the process live", () => {
  const script = `
    import { Graph, toOnnx } from "./dist/graph/index.js";
    import { createNodeEngine } from "./dist/runtime/node.js";
    const graph = new Graph();
    const x = graph.input("x", ["n", "n"]);
    graph.output("y", x.matMul(x).matMul(x));
    const engine = createNodeEngine({ threads: 1 });
    const session = await engine.load({ model: toOnnx(graph, () => undefined), weightsFolder: "." });
    const feeds = { x: { dtype: "float32", dims: [2048, 2048], data: new Float32Array(2048 * 2048) } };
    const run = session.run({ feeds, fetch: ["y"] }).catch((error) => console.log(error.code));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await engine.close();
    await run;
    await new Promise((resolve) => setTimeout(resolve, 500));
    console.log("alive");`;
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    cwd: root,
    encoding: "utf8",
  });
  expect(stdout).toBe("E_RUNTIME\nalive\n");
});

test.each([0, -1, 1.5, Number.NaN])("threads %d are refused", async (threads) => {
  expect(await femoError("E_OPTION", () => createNodeEngine({ threads }))).toMatch(/^threads: /);
});
