import { describe, expect, test, vi } from "vitest";
import { computedBytes, defaultDtype, weightsIn } from "../../src/denoising/index.js";
import { Checkpoint, matrixInBits } from "../../src/weights/index.js";

/** Square matrices of linear layers; names and shapes, which is all that is asked for. */
const network = (matrices: number, width: number) => {
  const names = Array.from({ length: matrices }, (_, i) => `blocks.${i}.weight`);
  const tensors = names.map((name) => ({
    ...{ name, dtype: "float32" as const, shape: [width, width], file: "large.safetensors" },
    ...{ offset: 0, byteLength: 4 * width ** 2 },
  }));
  const linears = () => ({ main: names, modulation: [], other: [] });
  return { checkpoint: Checkpoint.fromTensors("large", tensors), linears };
};
const large = network(20, 8192); // 5.4 GB
const never = () => expect.unreachable("measured where it does not matter") as never;

describe("a large network that fits into memory in float32", () => {
  test.each([
    [3, { dtype: "int8", timesAsFast: 3 }],
    [1.2, { dtype: "float32" }],
    [0, { dtype: "float32" }], // no such products
  ])("takes what 8 bits' being %f times as fast is worth", async (timesAsFast, expected) => {
    const measure = vi.fn(async () => timesAsFast);
    const memory = computedBytes(large.checkpoint);
    expect(await defaultDtype(large.checkpoint, large.linears, memory, measure)).toEqual(expected);
    expect(measure).toHaveBeenCalledTimes(1);
  });

  test("keeps the few bits that its file has, without measuring", async () => {
    const { checkpoint, linears } = large;
    const packed = checkpoint.withDerived(linears().main.map((name) => matrixInBits(checkpoint, name, 4)));
    // Other tensors make it large still.
    const mixed = packed.withTensors([
      ...packed.tensors(),
      ...network(20, 8192)
        .checkpoint.tensors()
        .map((tensor) => ({ ...tensor, name: `other.${tensor.name}` })),
    ]);
    expect(await defaultDtype(mixed, linears, Number.POSITIVE_INFINITY, never)).toEqual({ dtype: "float32" });
  });
});

test("one that does not fit takes the most bits that do, whatever is faster", async () => {
  const { checkpoint, linears } = large;
  const bytesInFloat32 = computedBytes(checkpoint);
  const int8Bytes = computedBytes(weightsIn("int8", checkpoint, linears));
  const chosen = (bytes: number) => defaultDtype(checkpoint, linears, bytes, never);
  expect(await chosen(bytesInFloat32 - 1)).toEqual({ dtype: "int8", bytesInFloat32 });
  expect(await chosen(int8Bytes)).toEqual({ dtype: "int8", bytesInFloat32 });
  expect(await chosen(int8Bytes - 1)).toEqual({ dtype: "int4", bytesInFloat32 });
  expect(await chosen(0)).toEqual({ dtype: "int4", bytesInFloat32 });
});

test("a small one is drawn in float32 wherever it fits", async () => {
  const { checkpoint, linears } = network(20, 64);
  expect(await defaultDtype(checkpoint, linears, computedBytes(checkpoint), never)).toEqual({ dtype: "float32" });
});
