import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { DTYPE_BITS } from "../../src/weights/dtypes.js";
import { readGguf } from "../../src/weights/gguf.js";
import { Checkpoint, memoryByteSource, memoryFolder, openCheckpoint } from "../../src/weights/index.js";
import { readSafetensorsHeader } from "../../src/weights/safetensors.js";
import { femoError, guardedSource, hex } from "./helpers.js";

const folder = fileURLToPath(new URL("../goldens/gguf", import.meta.url));
const kinds = Uint8Array.from(readFileSync(`${folder}/kinds.gguf`));
const expected = Object.entries(
  JSON.parse(readFileSync(`${folder}/kinds.expected.json`, "utf8")) as Record<
    string,
    { dtype: string; shape: number[]; byteLength: number; bytes: string; float32: string }
  >,
);
const read = (bytes: Uint8Array) => readGguf(guardedSource(bytes));

/** Little-endian bytes: numbers as uint32, bigints as uint64, texts with their length, bytes as they are. */
function bytesOf(...parts: (number | bigint | string | Uint8Array)[]): Uint8Array {
  return Buffer.concat(
    parts.map((part) => {
      if (part instanceof Uint8Array) return part;
      if (typeof part === "string") return Buffer.concat([bytesOf(BigInt(Buffer.byteLength(part))), Buffer.from(part)]);
      const bytes = Buffer.alloc(typeof part === "bigint" ? 8 : 4);
      if (typeof part === "bigint") bytes.writeBigUInt64LE(part);
      else bytes.writeUInt32LE(part);
      return bytes;
    }),
  );
}
const magic = Buffer.from("GGUF");
interface Described {
  readonly name: string;
  readonly dims: readonly bigint[];
  readonly type?: number;
  readonly offset?: bigint;
}
/** A file of these tensors and entries, valid or not, with so many bytes of data. */
function gguf(tensors: readonly Described[], pairs: readonly Uint8Array[] = [], data = 0, version = 3): Uint8Array {
  const header = bytesOf(
    ...[magic, version, BigInt(tensors.length), BigInt(pairs.length), ...pairs],
    ...tensors.flatMap(({ name, dims, type = 0, offset = 0n }) => [name, dims.length, ...dims, type, offset]),
  );
  return Buffer.concat([header, Buffer.alloc(32 * Math.ceil(header.length / 32) - header.length + data)]);
}

describe("a file written by the reference implementation", () => {
  test("names, types, shapes, architecture", async () => {
    const { tensors, architecture } = await read(kinds);
    expect(architecture).toBe("flux");
    expect([...tensors.keys()]).toEqual(expected.map(([name]) => name));
    for (const [name, { dtype, shape, byteLength }] of expected) {
      expect(tensors.get(name)).toMatchObject({ name, dtype, shape, byteLength });
    }
  });

  test("stored bytes and values", async () => {
    const files = new Map([["flux1-dev-Q4_K.gguf", kinds]]);
    const checkpoint = await openCheckpoint(memoryFolder("dir", files), "flux1-dev-Q4_K.gguf");
    for (const [name, { bytes, float32 }] of expected) {
      expect(hex(await checkpoint.readBytes(name)).startsWith(bytes), name).toBe(true);
      const values = await checkpoint.readTensor(name);
      expect(hex(new Uint8Array(values.buffer)).startsWith(float32), name).toBe(true);
      expect(values.length).toBe(checkpoint.get(name)?.shape.reduce((a, b) => a * b, 1));
    }
  });

  test("only what comes before the data is read", async () => {
    const { tensors } = await read(kinds);
    const dataStart = Math.min(...[...tensors.values()].map(({ offset }) => offset));
    const large = Buffer.concat([kinds, Buffer.alloc(10 * 2 ** 20)]);
    const source = guardedSource(large);
    await readGguf(source);
    expect(source.bytesRead()).toBeLessThanOrEqual(dataStart + 2 ** 16 + 8);
  });
});

test("version 2, no entries, no tensors, scalars and empty tensors", async () => {
  expect((await read(gguf([], [], 0, 2))).tensors.size).toBe(0);
  const { tensors, architecture } = await read(
    gguf(
      [
        { name: "e", dims: [0n, 3n] },
        { name: "s", dims: [] },
      ],
      [],
      4,
    ),
  );
  expect(architecture).toBeUndefined();
  expect(tensors.get("e")).toMatchObject({ shape: [3, 0], byteLength: 0 });
  expect(tensors.get("s")).toMatchObject({ shape: [], byteLength: 4 });
});

describe("a malformed file is refused", () => {
  const huge = 2n ** 64n - 1n;
  const entry = (key: string, kind: number, ...value: Parameters<typeof bytesOf>) => bytesOf(key, kind, ...value);
  test.each<[string, Uint8Array, string]>([
    ["empty", new Uint8Array(0), 'which begins with "GGUF"'],
    ["another format", bytesOf("{}"), 'which begins with "GGUF"'],
    ["the first four bytes", magic, "announces 4 bytes more"],
    ["version 1", gguf([], [], 0, 1), "found version 1"],
    ["version 4", gguf([], [], 0, 4), "found version 4"],
    ["big-endian", gguf([], [], 0, 3 << 24), "found a big-endian file"],
    ["2^64 - 1 tensors", bytesOf(magic, 3, huge, 0n), 'announces 18446744073709551615 "tensors"'],
    ["2^64 - 1 entries", bytesOf(magic, 3, 0n, huge), 'announces 18446744073709551615 "entries"'],
    ["a key of 2^64 - 1 bytes", bytesOf(magic, 3, 0n, 1n, huge, 0n), "a key of 18446744073709551615 bytes"],
    ["a key that is not UTF-8", gguf([], [bytesOf(1n, Uint8Array.of(0xff), 4, 0)]), "expected UTF-8 as a key"],
    ["a value of an unknown type", gguf([], [entry("k", 13, 0n)]), "found 13"],
    ["a string of 2^64 - 1 bytes", gguf([], [entry("k", 8, huge)]), "a value of 18446744073709551615 bytes"],
    ["2^63 items", gguf([], [entry("k", 9, 12, 2n ** 63n)]), "announces 9223372036854775808"],
    ["2^60 strings", gguf([], [entry("k", 9, 8, 2n ** 60n)]), "announces 1152921504606846976"],
    [
      "nested without end",
      gguf([], [entry("k", 9, ...Array.from({ length: 20 }, () => [9, 1n]).flat())]),
      "deeper than 8",
    ],
    ["an alignment of 0", gguf([], [entry("general.alignment", 4, 0)]), "expected a power of two, found 0"],
    ["an alignment of 33", gguf([], [entry("general.alignment", 4, 33)]), "found 33"],
    ["an alignment as text", gguf([], [entry("general.alignment", 8, "32")]), "expected a uint32, found type 8"],
    ["an architecture of 7", gguf([], [entry("general.architecture", 4, 7)]), "expected a string, found type 4"],
    ["a shape of floats", gguf([], [entry("comfy.gguf.orig_shape.a", 9, 6, 1n, 1)]), "found type 6"],
    [
      "a shape of 9 axes",
      gguf([], [entry("comfy.gguf.orig_shape.a", 9, 5, 9n, ...Array(9).fill(1))]),
      "found 9 of them",
    ],
    ["a shape below 0", gguf([], [entry("comfy.gguf.orig_shape.a", 9, 5, 1n, 2 ** 32 - 1)]), "found [-1]"],
  ])("%s", async (_, bytes, message) => {
    const text = await femoError("E_FILE", () => read(bytes));
    expect(text).toContain(message);
    expect(text).toContain("file.safetensors");
  });

  const one = { name: "w", dims: [4n] };
  test.each<[string, Uint8Array, string]>([
    ["nine axes", gguf([{ name: "w", dims: Array(9).fill(1n) }], [], 4), "at most 8 axes, found 9"],
    ["a type that is not read", gguf([{ ...one, type: 10 }], [], 99), "found Q2_K"],
    ["no type", gguf([{ ...one, type: 77 }], [], 99), "found 77"],
    ["half a block", gguf([{ ...one, type: 8 }], [], 99), "whole blocks of 32 for q8_0, found rows of 4"],
    ["rows of no whole blocks", gguf([{ name: "w", dims: [16n, 2n], type: 2 }], [], 99), "found rows of 16"],
    ["2^64 elements", gguf([{ name: "w", dims: [2n ** 63n, 2n] }], [], 4), "73786976294838206464 bytes"],
    [
      "an empty tensor of 2^63 rows",
      gguf([{ name: "w", dims: [0n, 2n ** 63n] }], [], 4),
      "has a size 9223372036854775808",
    ],
    ["bytes behind the end", gguf([{ ...one, offset: 32n }], [], 32), "16 bytes from byte 32"],
    ["an offset of 2^64 - 1", gguf([{ ...one, offset: huge }], [], 32), "from byte 18446744073709551615"],
    ["no multiple of the alignment", gguf([{ ...one, offset: 4n }], [], 32), "should begin at byte 64"],
    ["a gap", gguf([one, { name: "v", dims: [4n], offset: 64n }], [], 99), 'behind tensor "w", found'],
    ["an overlap", gguf([one, { name: "v", dims: [4n] }], [], 99), "should begin at byte"],
    ["a name twice", gguf([one, { ...one, offset: 32n }], [], 99), "is there a second time"],
    [
      "another number of elements in the original shape",
      gguf([one], [entry("comfy.gguf.orig_shape.w", 9, 5, 1n, 5)], 99),
      "found the original shape [5]",
    ],
  ])("tensor: %s", async (_, bytes, message) => {
    const text = await femoError("E_WEIGHT", () => read(bytes));
    expect(text).toContain(message);
    expect(text).toMatch(/file\.safetensors: tensor "[wv]"/);
  });

  test("where safetensors is expected", async () => {
    expect(await femoError("E_FILE", () => readSafetensorsHeader(guardedSource(kinds)))).toContain("found a GGUF file");
  });

  test("a header above 100 MB, in pieces", async () => {
    const file = gguf([], [entry("k", 8, 200_000_000n)]);
    const source = { ...guardedSource(file), size: 2 ** 40, read: async (a: number, b: number) => file.slice(a, b) };
    expect(await femoError("E_FILE", () => readGguf(source))).toContain("a header has at most 100000000");
  });
});

describe("whatever the bytes, the result is tensors inside the file, or a FemoError", () => {
  async function holds(bytes: Uint8Array): Promise<void> {
    const source = guardedSource(bytes);
    try {
      const { tensors } = await readGguf(source);
      let end = 0;
      for (const { offset, byteLength, shape, dtype } of tensors.values()) {
        expect(offset).toBeGreaterThanOrEqual(end);
        end = offset + byteLength;
        expect(byteLength * 8).toBe(shape.reduce((a, b) => a * b, DTYPE_BITS[dtype]));
      }
      expect(end).toBeLessThanOrEqual(bytes.length);
    } catch (error) {
      if (!(error instanceof FemoError)) throw error;
      expect(error.message.length).toBeLessThan(1500);
    }
    expect(source.bytesRead()).toBeLessThanOrEqual(2 * bytes.length + 8);
  }

  test("cut off at each byte of the header", async () => {
    const { tensors } = await read(kinds);
    const dataStart = Math.min(...[...tensors.values()].map(({ offset }) => offset));
    for (let end = 0; end < dataStart; end++) {
      await holds(kinds.slice(0, end));
      await expect(read(kinds.slice(0, end))).rejects.toThrow(FemoError);
    }
  });

  test("changed bytes", () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(2600), fc.nat(255)), { minLength: 1, maxLength: 4 }), (changes) => {
        const changed = kinds.slice();
        for (const [at, byte] of changes) changed[at % changed.length] = byte;
        return holds(changed);
      }),
      { numRuns: 1500 },
    ));

  test("flipped bits, and bytes put in", () =>
    fc.assert(
      fc.asyncProperty(fc.nat(2600), fc.nat(7), fc.uint8Array({ maxLength: 9 }), async (at, bit, more) => {
        const flipped = kinds.slice();
        flipped[at] = (flipped[at] as number) ^ (1 << bit);
        await holds(flipped);
        await holds(Buffer.concat([kinds.subarray(0, at), more, kinds.subarray(at)]));
      }),
      { numRuns: 700 },
    ));

  test("numbers of any size in their places", () => {
    const size = fc.oneof(fc.bigInt({ min: 0n, max: 64n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
    const tensor = fc.record({
      name: fc.string({ maxLength: 5 }),
      dims: fc.array(size, { maxLength: 9 }),
      type: fc.oneof(fc.nat(40), fc.nat(2 ** 31)),
      offset: fc.oneof(fc.constant(0n), size),
    });
    const pair = fc
      .tuple(
        fc.constantFrom("k", "general.alignment", "comfy.gguf.orig_shape.a"),
        fc.nat(14),
        size,
        fc.uint8Array({ maxLength: 40 }),
      )
      .map(([key, kind, length, value]) => bytesOf(key, kind, length, value));
    return fc.assert(
      fc.asyncProperty(
        fc.array(tensor, { maxLength: 4 }),
        fc.array(pair, { maxLength: 3 }),
        fc.nat(300),
        (tensors, pairs, data) => holds(gguf(tensors, pairs, data)),
      ),
      { numRuns: 1500 },
    );
  });

  test("any bytes behind the magic number", () =>
    fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 120 }), (bytes) => holds(bytesOf(magic, 3, bytes))),
      { numRuns: 500 },
    ));

  /** Valid files of random tensors: what was written is what is read. */
  test("round trip", () =>
    fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.string({ unit: "grapheme" }), fc.array(fc.nat(3), { maxLength: 4 }), { maxKeys: 6 }),
        async (shapes) => {
          let at = 0n;
          const tensors = Object.entries(shapes).map(([name, shape]) => {
            const offset = at;
            const bytes = 4 * shape.reduce((a, b) => a * b, 1);
            at += BigInt(32 * Math.ceil(bytes / 32));
            return { name, dims: shape.map(BigInt).reverse(), offset };
          });
          const file = gguf(tensors, [], Number(at));
          for (let i = file.length - Number(at); i < file.length; i++) file[i] = i % 251;
          const checkpoint = await Checkpoint.fromSources("c", [memoryByteSource("f", file)]);
          expect(checkpoint.names().sort()).toEqual(Object.keys(shapes).sort());
          for (const { name, offset } of tensors) {
            expect(checkpoint.get(name)?.shape).toEqual(shapes[name]);
            const start = file.length - Number(at) + Number(offset);
            const bytes = await checkpoint.readBytes(name);
            expect(hex(bytes)).toBe(hex(file.subarray(start, start + bytes.length)));
          }
        },
      ),
    ));
});
