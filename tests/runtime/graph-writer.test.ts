import { expect, test } from "vitest";
import { Graph } from "../../src/graph/index.js";
import { graphWriter } from "../../src/runtime/graph-writer.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";

const tensor = (name: string, file: string): TensorInfo => ({
  name,
  file,
  dtype: "float32",
  shape: [1],
  offset: 0,
  byteLength: 4,
});

test.each([
  ["one file", ["/m/unet/a.bin"], "/m/unet/", ["a.bin"]],
  ["a file in the root", ["/a.bin"], "/", ["a.bin"]],
  ["shards side by side", ["/m/a-1.bin", "/m/a-2.bin"], "/m/", ["a-1.bin", "a-2.bin"]],
  ["shards in folders of their own", ["/c/blobs/3f/x", "/c/blobs/3e/y"], "/c/blobs/", ["3f/x", "3e/y"]],
  ["one below the other", ["/c/x", "/c/d/y"], "/c/", ["x", "d/y"]],
  ["Windows", ["C:\\m\\a", "C:\\m\\b\\c"], "C:\\m\\", ["a", "b\\c"]],
])("%s: weights are named from the deepest folder that has them all", (_, files, folder, inside) => {
  const graph = new Graph();
  const names = files.map((_, i) => `w${i}`);
  const [first, ...rest] = names.map((name) => graph.weight(name, [1]));
  graph.output(
    "y",
    rest.reduce((sum, value) => sum.add(value), first as NonNullable<typeof first>),
  );
  const checkpoint = Checkpoint.fromTensors(
    "test",
    names.map((name, i) => tensor(name, files[i] as string)),
  );
  const { model, files: written } = graphWriter(checkpoint).write(graph);
  expect(written).toEqual(files.map((at, i) => ({ name: inside[i], at })));
  const text = Buffer.from(model).toString("latin1");
  for (const file of inside) expect(text).toContain(file);
  expect(text).not.toContain(folder + inside[0]);
});

test("a graph has only the files that it needs, each with its fingerprint", () => {
  const graph = new Graph();
  graph.output("y", graph.weight("a", [1]).add(graph.weight("b", [1])));
  const tensors = [tensor("a", "/m/1.bin"), tensor("b", "/m/1.bin"), tensor("c", "/m/2.bin")];
  const checkpoint = Checkpoint.fromTensors(
    "test",
    tensors,
    undefined,
    new Map([["/m/1.bin", { fingerprint: "as it was" }]]),
  );
  const { files } = graphWriter(checkpoint).write(graph);
  expect(files).toEqual([{ name: "1.bin", at: "/m/1.bin", fingerprint: "as it was" }]);
});

test("files without a folder in common are refused", async () => {
  const checkpoint = Checkpoint.fromTensors("test", [tensor("a", "C:\\m\\a"), tensor("b", "D:\\m\\b")]);
  expect(await femoError("E_FILE", () => graphWriter(checkpoint))).toContain("found C:\\m\\, D:\\m\\. Copy them");
});
