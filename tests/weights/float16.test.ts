import fc from "fast-check";
import { expect, test } from "vitest";
import { FLOAT16_MAX, float16Bits, float16Value } from "../../src/weights/float16.js";
import { Checkpoint, memoryByteSource, tensorInHalf } from "../../src/weights/index.js";
import { femoError, safetensors } from "./helpers.js";

const positive = Array.from({ length: 0x7c00 }, (_, bits) => bits); // zero, subnormals, and numbers up to the greatest

test("every float16 comes back as itself", () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const isNan = (bits & 0x7fff) > 0x7c00;
    expect(float16Bits(float16Value(bits))).toBe(isNan ? (bits & 0x8000) | 0x7e00 : bits);
  }
});

test("what lies between two goes to the nearer one, and from the middle to the even one", () => {
  for (const bits of positive.slice(0, -1)) {
    const [below, above] = [float16Value(bits), float16Value(bits + 1)];
    const middle = (below + above) / 2;
    const gap = above - below;
    expect(float16Bits(middle)).toBe(bits % 2 === 0 ? bits : bits + 1);
    expect(float16Bits(middle - gap / 1024)).toBe(bits);
    expect(float16Bits(middle + gap / 1024)).toBe(bits + 1);
    expect(float16Bits(-middle)).toBe((bits % 2 === 0 ? bits : bits + 1) | 0x8000);
  }
});

test("any number is off by half a step of eleven bits at most, and infinite from 65520 on", () => {
  fc.assert(
    fc.property(fc.float({ min: -70_000, max: 70_000, noNaN: true }), (x) => {
      const found = float16Value(float16Bits(x));
      if (Math.abs(x) >= 65_520) expect(found).toBe(Math.sign(x) * Number.POSITIVE_INFINITY);
      else expect(Math.abs(found - x)).toBeLessThanOrEqual(Math.max(2 ** -25, Math.abs(x) * 2 ** -11));
    }),
  );
  expect(float16Value(float16Bits(1e30))).toBe(Number.POSITIVE_INFINITY);
  expect(float16Value(float16Bits(Number.NaN))).toBeNaN();
});

const opened = (values: readonly number[]): Promise<Checkpoint> => {
  const header = { w: { dtype: "F32", shape: [values.length], data_offsets: [0, 4 * values.length] } };
  return Checkpoint.fromSources("c", [
    memoryByteSource("f", safetensors(header, new Uint8Array(Float32Array.from(values).buffer))),
  ]);
};

test("a tensor in float16 has the nearest numbers, and a recipe of its own", async () => {
  const values = [0, 1, -0.1, 1e-7, FLOAT16_MAX];
  const checkpoint = await opened(values);
  const half = checkpoint.withDerived([tensorInHalf(checkpoint, "w")]);
  expect(half.get("w")).toMatchObject({ dtype: "float16", shape: [5] });
  expect([...(await half.readTensor("w"))]).toEqual(values.map((x) => float16Value(float16Bits(x))));
});

test.each([65_520, -1e6, Number.NaN, Number.POSITIVE_INFINITY])("a tensor with %d has none", async (x) => {
  const checkpoint = await opened([1, x]);
  const message = await femoError("E_WEIGHT", () => tensorInHalf(checkpoint, "w").make());
  expect(message).toContain(`w: expected numbers up to 65504 for dtype "float16", found ${x}`);
  expect(await femoError("E_WEIGHT", () => tensorInHalf(checkpoint, "v"))).toContain('expected "v"');
});
