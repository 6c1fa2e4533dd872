import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { Graph, toOnnx } from "../../src/graph/index.js";
import { createNodeEngine } from "../../src/platform/node/engine.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { WeightFile } from "../../src/runtime/engine.js";
import { graphWriter } from "../../src/runtime/graph-writer.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { femoError, safetensors } from "../weights/helpers.js";
import { engineForTests, floats, numbers } from "./helpers.js";

const engine = engineForTests();
const folder = mkdtempSync(join(tmpdir(), "femo-weight-files-"));
afterAll(() => rmSync(folder, { recursive: true }));

const WIDTH = 2 ** 16; // enough to be mapped, not copied
const bytesOf = (value: number): Uint8Array => new Uint8Array(new Float32Array(WIDTH).fill(value).buffer);
const x = floats([WIDTH], new Float32Array(WIDTH).fill(1));

/** y = x + w + v, each of them in a file of its own. */
function model(files: Readonly<Record<"w" | "v", string>>): Uint8Array {
  const graph = new Graph();
  graph.output(
    "y",
    graph
      .input("x", [WIDTH])
      .add(graph.weight("w", [WIDTH]))
      .add(graph.weight("v", [WIDTH])),
  );
  const [offset, byteLength, dtype, shape] = [0, 4 * WIDTH, "float32", [WIDTH]];
  return toOnnx(graph, (name) => ({ file: files[name as "w" | "v"], offset, byteLength, dtype, shape }));
}

const at = (name: string): string => join(folder, name);
/** A file that was written some time ago: clocks of file systems tick in milliseconds. */
function write(name: string, bytes: Uint8Array): string {
  writeFileSync(at(name), bytes);
  utimesSync(at(name), 1e9, 1e9);
  return at(name);
}
beforeEach(() => {
  mkdirSync(at("deep"), { recursive: true });
  write("w.bin", bytesOf(20));
  write("deep/v.bin", bytesOf(300));
});

const NAMES = { w: "w.bin", v: "deep/v.bin" };
const load = (w: WeightFile["at"], v: WeightFile["at"], names = NAMES) =>
  engine.load({
    model: model(names),
    files: [
      { name: names.w, at: w },
      { name: names.v, at: v },
    ],
  });

test.each<[string, () => WeightFile["at"], () => WeightFile["at"]]>([
  ["paths in one folder", () => at("w.bin"), () => at("deep/v.bin")],
  ["addresses of files", () => pathToFileURL(at("w.bin")), () => pathToFileURL(at("deep/v.bin"))],
  ["bytes", () => bytesOf(20), () => bytesOf(300)],
  ["a blob, and bytes", () => new Blob([bytesOf(20) as Uint8Array<ArrayBuffer>]), () => bytesOf(300)],
  ["bytes, and a path", () => bytesOf(20), () => at("deep/v.bin")],
])("weights may be %s", async (_, w, v) => {
  const session = await load(w(), v());
  const { outputs } = await session.run({ feeds: { x }, fetch: ["y"] });
  expect(new Set(numbers(outputs.y))).toEqual(new Set([321]));
  await session.release();
});

test("weights that cannot be found are E_FILE", async () => {
  const error = (w: WeightFile["at"], v: WeightFile["at"]) => femoError("E_FILE", () => load(w, v));
  expect(await error(at("gone.bin"), at("deep/v.bin"))).toContain(at("gone.bin"));
  expect(await error(new URL("https://localhost/w.bin"), at("deep/v.bin"))).toContain("https://localhost/w.bin");
  const other = write("other.bin", bytesOf(1));
  expect(await error(other, at("deep/v.bin"))).toContain(`${other}: expected a path that ends with "w.bin"`);
  mkdirSync(at("elsewhere/deep"), { recursive: true });
  const elsewhere = write("elsewhere/deep/v.bin", bytesOf(1));
  expect(await error(at("w.bin"), elsewhere)).toContain(`found ${folder}/, ${folder}/elsewhere/. Copy`);
});

const CHANGES: [string, (path: string) => void][] = [
  ["written over with as many bytes", (path) => writeFileSync(path, bytesOf(7))],
  ["cut short", (path) => truncateSync(path, 4096)],
  ["replaced by another of the same size and time", replace],
  ["removed", (path) => rmSync(path)],
];
function replace(path: string): void {
  renameSync(write("new.bin", bytesOf(7)), path);
}

describe.each(CHANGES)("a weight file that is %s", (_, change) => {
  test("fails the next run and the next load with E_FILE, and leaves the engine usable", async () => {
    const session = await load(at("w.bin"), at("deep/v.bin"));
    const run = () => session.run({ feeds: { x }, fetch: ["y"] });
    await run();
    change(at("deep/v.bin"));
    expect(await femoError("E_FILE", run)).toMatch(new RegExp(`^${at("deep/v.bin")}: .*pen the model again`));
    await session.release();

    const other = await load(at("w.bin"), write("deep/other.bin", bytesOf(1)), { ...NAMES, v: "deep/other.bin" });
    expect(numbers((await other.run({ feeds: { x }, fetch: ["y"] })).outputs.y)[0]).toBe(22);
  });

  test("after its model was opened is not loaded", async () => {
    const header = { w: { dtype: "F32", shape: [1], data_offsets: [0, 4] } };
    write("model.safetensors", safetensors(header, new Uint8Array(Float32Array.of(5).buffer)));
    const checkpoint = await openCheckpoint(nodeFolder(folder), "model.safetensors");
    const graph = new Graph();
    graph.output("y", graph.weight("w", [1]));
    const file = graphWriter(checkpoint).write(graph);
    await (await engine.load(file)).release();
    change(at("model.safetensors"));
    expect(await femoError("E_FILE", () => engine.load(file))).toContain("model.safetensors: ");
  });
});

test("a weight file that is cut short while a graph runs is E_FILE", async () => {
  const brief = createNodeEngine({ threads: 1 });
  try {
    const graph = new Graph();
    graph.output("y", graph.input("x", [WIDTH]).add(graph.weight("w", [WIDTH])));
    const place = { file: "w.bin", offset: 0, byteLength: 4 * WIDTH, dtype: "float32", shape: [WIDTH] };
    const session = await brief.load({
      model: toOnnx(graph, () => place),
      files: [{ name: "w.bin", at: at("w.bin") }],
      once: true, // read from the file by every run
    });
    await session.run({ feeds: { x }, fetch: ["y"] });
    const runs = session.runEach(new Array(500).fill({ feeds: { x }, fetch: [] }));
    truncateSync(at("w.bin"), 4096);
    expect(await femoError("E_FILE", () => runs)).toContain(`${at("w.bin")}: changed since it was opened`);
  } finally {
    await brief.close();
  }
});

test("a copy of a weight file elsewhere changes nothing", async () => {
  const session = await load(at("w.bin"), at("deep/v.bin"));
  copyFileSync(at("w.bin"), at("copy.bin"));
  await session.run({ feeds: { x }, fetch: ["y"] });
});
