import { describe, expect, test } from "vitest";
import { Graph, toOnnx } from "../../src/graph/index.js";
import { createNodeEngine } from "../../src/platform/node/engine.js";
import type { Engine, RunRequest } from "../../src/runtime/engine.js";
import { femoError } from "../weights/helpers.js";
import { engineForTests, floats, integers, numbers } from "./helpers.js";

const engine = engineForTests();

/** y = x + s; y can be held and fed back as s. */
const adder = (on: Engine) => {
  const graph = new Graph();
  graph.output("y", graph.input("x", ["n"]).add(graph.input("s", ["n"])));
  return on.load({ model: toOnnx(graph, () => undefined), files: [] });
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
    const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
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

  test("may be sent back too, each as it was after its run", async () => {
    const session = await adder(engine);
    await engine.holdZeros({ zero: [1] });
    const requests = [1, 2, 3].map((i) => ({
      feeds: { x: floats([1], [i]), s: { held: "zero" } },
      fetch: ["y"],
      hold: { y: "both" },
    }));
    const results = await session.runEach(requests);
    expect(results.map(({ outputs }) => numbers(outputs.y))).toEqual([[1], [2], [3]]);
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

describe("rows of held tensors", () => {
  /** Holds and reads tensors of [n, 2]. */
  const copier = async () => {
    const graph = new Graph();
    graph.output("y", graph.input("x", ["n", 2]));
    const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
    return {
      hold: (name: string, rows: number[][]) =>
        session.run({ feeds: { x: floats([rows.length, 2], rows.flat()) }, fetch: [], hold: { y: name } }),
      read: async (name: string) => (await session.run({ feeds: { x: { held: name } }, fetch: ["y"] })).outputs.y,
    };
  };

  test("become tensors of their own, in the order asked for", async () => {
    const { hold, read } = await copier();
    await hold("batch", [
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    await engine.take({ some: { from: "batch", rows: [2, 0] }, twice: { from: "batch", rows: [1, 1, 1] } });
    await engine.free(["batch"]);
    expect(await read("some")).toEqual(floats([2, 2], [5, 6, 1, 2]));
    expect(await read("twice")).toEqual(floats([3, 2], [3, 4, 3, 4, 3, 4]));
  });

  test("are all read before a tensor is replaced", async () => {
    const { hold, read } = await copier();
    await hold("a", [[1, 1]]);
    await hold("b", [[2, 2]]);
    await engine.take({ a: { from: "b", rows: [0] }, b: { from: "a", rows: [0] } });
    expect([await read("a"), await read("b")]).toEqual([floats([1, 2], [2, 2]), floats([1, 2], [1, 1])]);
  });

  test("may be integers", async () => {
    const graph = new Graph();
    graph.output("y", graph.input("x", ["n"], "int64"));
    const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
    await session.run({ feeds: { x: integers([3], [7, 8, 9]) }, fetch: [], hold: { y: "whole" } });
    await engine.take({ part: { from: "whole", rows: [2, 1] } });
    const { outputs } = await session.run({ feeds: { x: { held: "part" } }, fetch: ["y"] });
    expect(outputs.y).toEqual(integers([2], [9, 8]));
  });

  test("that are not there are E_RUNTIME, and nothing has changed", async () => {
    const { hold, read } = await copier();
    await hold("two", [
      [1, 2],
      [3, 4],
    ]);
    for (const row of [2, -1, 0.5]) {
      const take = () => engine.take({ two: { from: "two", rows: [1] }, other: { from: "two", rows: [0, row] } });
      expect(await femoError("E_RUNTIME", take)).toContain(`"two", [2, 2], has 2 rows and no row ${row}`);
    }
    const missing = () => engine.take({ two: { from: "two", rows: [1] }, other: { from: "none", rows: [0] } });
    expect(await femoError("E_RUNTIME", missing)).toContain('held as "none"');
    expect(numbers(await read("two"))).toEqual([1, 2, 3, 4]);
  });
});

describe("a run that does not fit its graph is E_RUNTIME and says where", () => {
  const x = floats([2], [1, 2]);
  test.each<[string, RunRequest, string]>([
    ["an input that is missing", { feeds: { x }, fetch: ["y"] }, 'input "s"'],
    ["an unknown input", { feeds: { x, s: x, q: x }, fetch: ["y"] }, 'no input "q", only "x", "s"'],
    ["an unknown output", { feeds: { x, s: x }, fetch: ["z"] }, 'no output "z", only "y"'],
    ["an unknown output to hold", { feeds: { x, s: x }, fetch: [], hold: { z: "a" } }, 'no output "z"'],
    ["a name that is not held", { feeds: { x, s: { held: "nowhere" } }, fetch: ["y"] }, '"nowhere"'],
    ["data of another size", { feeds: { x, s: { ...x, dims: [3] } }, fetch: ["y"] }, '"s", float32 [3]: '],
    ["data of another type", { feeds: { x, s: { ...x, dtype: "int64" } }, fetch: ["y"] }, '"s", int64 [2]: '],
  ])("%s", async (_, request, message) => {
    const session = await adder(engine);
    expect(await femoError("E_RUNTIME", () => session.run(request))).toContain(message);
    expect(numbers((await session.run({ feeds: { x, s: x }, fetch: ["y"] })).outputs.y)).toEqual([2, 4]);
  });

  test("a held tensor read in a shape of another size", async () => {
    const session = await adder(engine);
    await engine.holdZeros({ six: [6] });
    const run = () => session.run({ feeds: { x, s: { held: "six", dims: [5] } }, fetch: ["y"] });
    expect(await femoError("E_RUNTIME", run)).toContain('"s": "six" as [5]: ');
  });

  test("two outputs held under one name", async () => {
    const graph = new Graph();
    const input = graph.input("x", ["n"]);
    graph.output("y", input.add(input));
    graph.output("z", input.mul(input));
    const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
    const run = () => session.run({ feeds: { x }, fetch: [], hold: { y: "one", z: "one" } });
    expect(await femoError("E_RUNTIME", run)).toContain('held as "one"');
  });

  test("an output of another type than the engine passes on", async () => {
    const graph = new Graph();
    const to = 11; // float64, in onnx.proto3
    graph.output("y", graph.node("Cast", [graph.input("x", ["n"])], ["n"], { dtype: "float64", attributes: { to } }));
    const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
    expect(await femoError("E_RUNTIME", () => session.run({ feeds: { x }, fetch: ["y"] }))).toContain("found float64");
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
  const load = () => engine.load({ model: Uint8Array.of(1, 2, 3), files: [] });
  expect(await femoError("E_RUNTIME", load)).toContain("cannot load the graph (3 bytes with 0 weight files)");
  const session = await adder(engine);
  await session.release();
  const x = floats([1], [1]);
  expect(await femoError("E_RUNTIME", () => session.run({ feeds: { x, s: x }, fetch: ["y"] }))).toContain("not loaded");
});

test("an engine that cannot start refuses every call, and closes", async () => {
  const { execPath } = process;
  process.execPath = "/no/such/node";
  const none = createNodeEngine();
  process.execPath = execPath;
  expect(await femoError("E_RUNTIME", () => none.holdZeros({ a: [1] }))).toContain("/no/such/node");
  await none.close();
});

test("a closed engine refuses every call", async () => {
  const brief = createNodeEngine({ threads: 1 });
  const session = await adder(brief);
  await brief.close();
  const x = floats([1], [1]);
  expect(await femoError("E_RUNTIME", () => session.run({ feeds: { x, s: x }, fetch: ["y"] }))).toContain("closed");
  await femoError("E_RUNTIME", () => brief.holdZeros({ a: [1] }));
});

test.each([0, -1, 1.5, Number.NaN, 1025, Number.POSITIVE_INFINITY])("threads %d are refused", async (threads) => {
  expect(await femoError("E_OPTION", () => createNodeEngine({ threads }))).toBe(
    `threads: expected an integer from 1 to 1024, found ${threads}`,
  );
});
