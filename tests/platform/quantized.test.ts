import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { quantizedCheckpoint } from "../../src/platform/node/quantized.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { quantizeMatrix } from "../../src/weights/quantize.js";
import { noise } from "../runtime/helpers.js";
import { femoError, goldens, safetensors } from "../weights/helpers.js";
import { torchGoldens } from "../weights/torch-helpers.js";

const root = mkdtempSync(join(tmpdir(), "femo-quantized-"));
afterAll(() => rmSync(root, { recursive: true }));

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(root, "cache-"));
});
const kept = () => readdirSync(join(folder, "int8")).map((name) => join(folder, "int8", name));

const weights = noise([6, 200], 3).data as Float32Array;
/** float32 "w" [6, 200], the same again as "half" in bfloat16, and a "vector". */
async function written(name: string): Promise<Checkpoint> {
  const half = Uint8Array.from(
    { length: 2400 },
    (_, i) => new Uint8Array(weights.buffer)[4 * (i >> 1) + 2 + (i & 1)] as number,
  );
  const header = {
    w: { dtype: "F32", shape: [6, 200], data_offsets: [0, 4800] },
    half: { dtype: "BF16", shape: [6, 200], data_offsets: [4800, 7200] },
    vector: { dtype: "F32", shape: [1], data_offsets: [7200, 7204] },
  };
  const data = new Uint8Array(7204);
  data.set(new Uint8Array(weights.buffer));
  data.set(half, 4800);
  writeFileSync(join(root, name), safetensors(header, data));
  return openCheckpoint(nodeFolder(root), name);
}
const bytesOf = (data: Uint8Array | Float32Array) => Uint8Array.from(new Uint8Array(data.buffer));

describe("quantised weights", () => {
  test("are those of each matrix as float32, whatever its type", async () => {
    const checkpoint = await written("a.safetensors");
    const quantized = await quantizedCheckpoint(checkpoint, ["w", "half"], { folder });
    for (const name of ["w", "half"]) {
      const { values, scales } = quantizeMatrix(await checkpoint.readTensor(name), 200, name);
      expect(await quantized.readBytes(name)).toEqual(bytesOf(values));
      expect(await quantized.readBytes(`${name}.scales`)).toEqual(bytesOf(scales));
      expect(quantized.get(name)).toMatchObject({ dtype: "uint8", shape: [6, 2, 128] });
      expect(quantized.get(`${name}.scales`)).toMatchObject({ dtype: "float32", shape: [6, 2] });
    }
  });

  test.each([
    [`${torchGoldens}/pipeline`, "transformer/diffusion_pytorch_model.bin"],
    [`${goldens}/../torch`, "DiT-tiny.pt"],
  ])("come from what torch.save wrote: %s %s", async (at, file) => {
    const checkpoint = await openCheckpoint(nodeFolder(at), file);
    const matrix = checkpoint.tensors().find(({ shape }) => shape.length === 2) ?? expect.fail("no matrix");
    const quantized = await quantizedCheckpoint(checkpoint, [matrix.name], { folder });
    const { values } = quantizeMatrix(await checkpoint.readTensor(matrix.name), matrix.shape[1] as number, "w");
    expect(await quantized.readBytes(matrix.name)).toEqual(bytesOf(values));
  });

  test("are written once, and again when the checkpoint's file or the choice changes", async () => {
    const checkpoint = await written("b.safetensors");
    await quantizedCheckpoint(checkpoint, ["w"], { folder });
    const [file] = kept() as [string];
    utimesSync(file, 1, 1);
    await quantizedCheckpoint(checkpoint, ["w"], { folder });
    expect(statSync(file).mtimeMs).toBe(1000);
    await quantizedCheckpoint(checkpoint, ["half"], { folder });
    expect(kept()).toHaveLength(2);
    utimesSync(join(root, "b.safetensors"), 5, 5);
    await quantizedCheckpoint(checkpoint, ["w"], { folder });
    expect(kept()).toHaveLength(3);
  });

  test("are written again where the file is cut off", async () => {
    const checkpoint = await written("c.safetensors");
    const wanted = await (await quantizedCheckpoint(checkpoint, ["w"], { folder })).readBytes("w");
    truncateSync(kept()[0] as string, 900);
    expect(await (await quantizedCheckpoint(checkpoint, ["w"], { folder })).readBytes("w")).toEqual(wanted);
    expect(kept()).toHaveLength(1);
  });

  test("two who write at once both get them", async () => {
    const checkpoint = await written("d.safetensors");
    const both = await Promise.all([1, 2].map(() => quantizedCheckpoint(checkpoint, ["w"], { folder })));
    expect(await both[0]?.readBytes("w")).toEqual(await both[1]?.readBytes("w"));
    expect(kept()).toHaveLength(1);
  });

  test("an abort or an error leaves no file", async () => {
    const checkpoint = await written("e.safetensors");
    const reason = new Error("enough");
    const aborted = quantizedCheckpoint(checkpoint, ["w"], { folder, signal: AbortSignal.abort(reason) });
    await expect(aborted).rejects.toBe(reason);
    expect(kept()).toEqual([]);
    truncateSync(join(root, "e.safetensors"), 300);
    await femoError("E_FILE", () => quantizedCheckpoint(checkpoint, ["w"], { folder }));
    expect(kept()).toEqual([]);
  });

  test("what is no matrix is refused", async () => {
    const checkpoint = await written("f.safetensors");
    const run = (name: string) => femoError("E_WEIGHT", () => quantizedCheckpoint(checkpoint, [name], { folder }));
    expect(await run("vector")).toContain("a matrix named vector, found [1]");
    expect(await run("absent")).toContain("found nothing");
  });

  test("a folder that cannot be written is named, and what to do", async () => {
    const checkpoint = await written("g.safetensors");
    const blocked = join(folder, "file");
    mkdirSync(folder, { recursive: true });
    writeFileSync(blocked, "");
    const run = () => quantizedCheckpoint(checkpoint, ["w"], { folder: blocked });
    expect(await femoError("E_FILE", run)).toMatch(/file.*cannot be written.*FEMO_CACHE/s);
  });
});
