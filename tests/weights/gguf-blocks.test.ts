import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { BLOCK_TYPES, type BlockType, dequantizeBlocks, packedBlocks } from "../../src/weights/gguf-blocks.js";
import { openCheckpoint, type TensorInfo } from "../../src/weights/index.js";
import { femoError } from "./helpers.js";

const folder = fileURLToPath(new URL("../goldens/gguf", import.meta.url));
const blocks = await openCheckpoint(nodeFolder(folder), "blocks.safetensors");
const types = Object.keys(BLOCK_TYPES) as BlockType[];

async function golden(type: BlockType) {
  const [bytes, values] = [await blocks.readBytes(`${type}.bytes`), await blocks.readTensor(`${type}.values`)];
  const { shape } = blocks.get(`${type}.values`) as TensorInfo;
  const [rows, columns] = shape as [number, number];
  return { bytes, values, rows, columns };
}

describe.each(types)("%s", (type) => {
  test("random blocks are to the bit what the reference makes of them", async () => {
    const { bytes, values } = await golden(type);
    const found = dequantizeBlocks(type, bytes);
    expect(new Uint32Array(found.buffer)).toEqual(new Uint32Array(values.buffer));
  });

  test("packed for MatMulNBits they are the same numbers", async () => {
    const { bytes, values, rows, columns } = await golden(type);
    const packed = packedBlocks(type, bytes, rows, columns);
    const { bits, block, scales, minimums } = packed;
    expect(packed.values).toHaveLength((rows * columns * bits) / 8);
    expect(scales).toHaveLength((rows * columns) / block);
    expect(minimums?.length).toBe(BLOCK_TYPES[type].minimums ? scales.length : undefined);
    const folded = bits === 4 && minimums !== undefined;
    for (const [i, wanted] of values.entries()) {
      const byte = packed.values[Math.floor((i * bits) / 8)] as number;
      const q = bits === 8 ? byte : (byte >> (4 * (i % 2))) & 15;
      const at = Math.floor(i / block);
      const [scale, minimum] = [scales[at] as number, minimums?.[at] ?? 0];
      const w = scale * (q - 2 ** (bits - 1)) - minimum; // in float64
      // Where eight scales were added to the minimum and rounded.
      const tolerance = folded ? 2 ** -23 * (16 * Math.abs(scale) + Math.abs(minimum)) : 0;
      if (!(Math.abs(Math.fround(w) - wanted) <= tolerance)) expect.fail(`element ${i}: ${w}, not ${wanted}`);
    }
  });

  test("bytes that are not those of the matrix are refused", async () => {
    const { bytes, rows, columns } = await golden(type);
    const { bytes: size, elements } = BLOCK_TYPES[type];
    expect(await femoError("E_WEIGHT", () => dequantizeBlocks(type, bytes.subarray(1)))).toContain(`blocks of ${size}`);
    for (const action of [
      () => packedBlocks(type, bytes.subarray(size), rows, columns),
      () => packedBlocks(type, bytes, rows + 1, columns),
      () => packedBlocks(type, bytes, (rows * columns) / (elements / 2), elements / 2),
    ]) {
      expect(await femoError("E_WEIGHT", action)).toContain(`for every ${elements} elements`);
    }
  });
});
