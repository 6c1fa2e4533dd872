import { once } from "node:events";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { childrenOf, runScript } from "./scripts.js";

/** `engine`, and `work`, which is in the middle of many runs when the lines after it are reached. */
const WORKING = `
  import { setTimeout as sleep } from "node:timers/promises";
  import { Graph, toOnnx } from "./dist/graph/index.js";
  import { createNodeEngine } from "./dist/platform/node/engine.js";
  const graph = new Graph();
  const x = graph.input("x", ["n", "n"]);
  graph.output("y", x.matMul(x).matMul(x));
  const engine = createNodeEngine({ threads: 1 });
  const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
  const request = (n) => ({ feeds: { x: { dtype: "float32", dims: [n, n], data: new Float32Array(n * n) } }, fetch: ["y"] });
  await session.run(request(1));
  const work = session.runEach(new Array(1000).fill(request(1024)));
  work.catch((error) => console.log(error.code + ":", error.message));
  await sleep(200);
`;

describe("a process that ends while a graph runs ends as it says", () => {
  test("process.exit", async () => {
    expect(await runScript(`${WORKING} process.exit(3);`)).toEqual({ code: 3, stdout: "", stderr: "" });
  });

  test("an uncaught error", async () => {
    const { code, stderr } = await runScript(`${WORKING} throw new Error("by mistake");`);
    expect(code).toBe(1);
    expect(stderr).toContain("Error: by mistake");
    expect(stderr).not.toContain("terminate");
  });

  test.skipIf(process.platform === "win32")("a handler of SIGTERM that exits", async () => {
    const script = `${WORKING} process.on("SIGTERM", () => process.exit(4)); process.kill(process.pid, "SIGTERM"); await work;`;
    expect(await runScript(script)).toEqual({ code: 4, stdout: "", stderr: "" });
  });

  test("a thread that is stopped, with the engine it started", async () => {
    const script = `
      import { Worker } from "node:worker_threads";
      const text = ${JSON.stringify(`${WORKING} console.log("working"); await work;`)};
      const thread = new Worker(new URL("data:text/javascript," + encodeURIComponent(
        text.replaceAll("./dist/", new URL("./dist/", "file://" + process.cwd() + "/").href))), { stdout: true });
      await new Promise((resolve) => thread.stdout.once("data", resolve));
      await thread.terminate();
      console.log("alive");`;
    expect(await runScript(script)).toEqual({ code: 0, stdout: "alive\n", stderr: "" });
  });
});

test("closing while a graph runs settles, rejects the run and lets the process end", async () => {
  const script = `${WORKING} await engine.close(); await engine.close(); console.log("closed");`;
  const stdout = "E_RUNTIME: the engine is closed\nclosed\n";
  expect(await runScript(script)).toEqual({ code: 0, stdout, stderr: "" });
});

test("an engine that is idle, used or not, does not keep the process alive", async () => {
  const unused = `
    import { DiffusionPipeline } from "./dist/index.js";
    await DiffusionPipeline.fromPretrained("avatars-dit");
    console.log("opened");`;
  expect(await runScript(unused)).toEqual({ code: 0, stdout: "opened\n", stderr: "" });
  const used = WORKING.replace("new Array(1000)", "new Array(1)");
  expect(await runScript(`${used} await work; console.log("done");`)).toEqual({
    code: 0,
    stdout: "done\n",
    stderr: "",
  });
});

test("many engines at once are no leak", async () => {
  const script = `
    import { createNodeEngine } from "./dist/platform/node/engine.js";
    const before = process.listenerCount("exit");
    const engines = Array.from({ length: 12 }, () => createNodeEngine());
    await Promise.all(engines.map((engine) => engine.close()));
    console.log(process.listenerCount("exit") - before);`;
  expect(await runScript(script)).toEqual({ code: 0, stdout: "0\n", stderr: "" });
});

// Finding the engine's process takes /proc.
describe.skipIf(process.platform !== "linux")("the engine's process", () => {
  const runs = (pid: number): boolean => {
    try {
      return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8")); // Z: over, and nobody has asked how it went
    } catch {
      return false;
    }
  };

  test("goes when the process that started it is killed", async () => {
    let engine: number | undefined;
    const ending = await runScript(`${WORKING} console.log("working"); await work;`, {
      during: async (child) => {
        await once(child.stdout as NodeJS.ReadableStream, "data");
        [engine] = childrenOf(child.pid);
        child.kill("SIGKILL");
      },
    });
    expect(ending).toEqual({ code: null, stdout: "working\n", stderr: "" });
    expect(engine).toBeGreaterThan(0);
    await expect.poll(() => runs(engine as number), { timeout: 50_000, interval: 100 }).toBe(false);
  });

  test("that is killed fails its calls, then and later, and nothing else", async () => {
    const script = `${WORKING}
      console.log("working");
      await work.catch(() => {});
      await engine.free([]).catch((error) => console.log(error.code));
      await engine.close();
      console.log("alive");`;
    const ending = await runScript(script, {
      during: async (child) => {
        await once(child.stdout as NodeJS.ReadableStream, "data");
        for (const pid of childrenOf(child.pid)) process.kill(pid, "SIGKILL");
      },
    });
    const death =
      "E_RUNTIME: the engine's process died (SIGKILL). The system may have run out of memory. Open the model again.";
    expect(ending).toEqual({ code: 0, stdout: `working\n${death}\nE_RUNTIME\nalive\n`, stderr: "" });
  });
});
