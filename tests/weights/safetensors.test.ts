import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { DTYPE_BITS, SAFETENSORS_DTYPES, toFloat32 } from "../../src/weights/dtypes.js";
import { Checkpoint, memoryByteSource, readSafetensorsHeader, type SafetensorsFile } from "../../src/weights/index.js";
import { safetensorsHeader } from "../../src/weights/safetensors-header.js";
import { expectedOf, femoError, golden, guardedSource, hex, safetensors } from "./helpers.js";

const read = (bytes: Uint8Array): Promise<SafetensorsFile> => readSafetensorsHeader(guardedSource(bytes));

const entry = (dtype: string, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });

describe.each(["dtypes", "names", "odd"])("%s.safetensors, written by the reference implementation", (name) => {
  const bytes = golden(`${name}.safetensors`);
  const expected = expectedOf(name);

  test("names, types and shapes", async () => {
    const { tensors } = await read(bytes);
    expect([...tensors.keys()].sort()).toEqual(expected.map(([tensor]) => tensor).sort());
    for (const [tensor, { dtype, shape }] of expected)
      expect(tensors.get(tensor)).toMatchObject({ dtype, shape, name: tensor });
  });

  test("stored bytes and values", async () => {
    const checkpoint = await Checkpoint.fromSources(name, [memoryByteSource("file", bytes)]);
    for (const [tensor, { bytes, float32 }] of expected) {
      expect(hex(await checkpoint.readBytes(tensor)), tensor).toBe(bytes);
      if (float32 === undefined) await femoError("E_WEIGHT", () => checkpoint.readTensor(tensor));
      else {
        const values = await checkpoint.readTensor(tensor);
        const wanted = new Float32Array(Uint8Array.from(Buffer.from(float32, "hex")).buffer);
        expect([...values], tensor).toEqual([...wanted]); // NaN equals NaN, -0 differs from 0
      }
    }
  });

  test("only the header is read", async () => {
    const source = guardedSource(bytes);
    const { tensors } = await readSafetensorsHeader(source);
    const dataStart = Math.min(...[...tensors.values()].map((tensor) => tensor.offset));
    expect(source.bytesRead()).toBeLessThanOrEqual(dataStart + 64);
  });
});

describe("free text entries", () => {
  const [one, two] = [entry("U8", [1], [0, 1]), entry("U8", [2], [1, 3])];
  const tensorsOf = async (metadata: unknown) =>
    (await read(safetensors({ __metadata__: metadata, pt: one, "a.w": two }, new Uint8Array(3)))).tensors;

  test("that name a stored tensor are tensors left out in its favour, as save_model writes them", async () => {
    const tensors = await tensorsOf({ format: "pt", "b.w": "a.w", "c.w": "a.w" });
    expect([...tensors.keys()]).toEqual(["pt", "a.w", "b.w", "c.w"]);
    const kept = tensors.get("a.w");
    for (const name of ["b.w", "c.w"]) expect(tensors.get(name)).toEqual({ ...kept, name });
  });

  test("of any other kind are passed over", async () => {
    for (const metadata of [null, {}, { format: "pt", título: '日本 "x"\n', "b.w": "x.w", "a.w": "pt" }]) {
      const tensors = await tensorsOf(metadata);
      expect([...tensors.keys()]).toEqual(["pt", "a.w"]);
      expect(tensors.get("a.w")?.shape).toEqual([2]);
    }
    expect((await read(golden("dtypes.safetensors"))).tensors.has("título")).toBe(false);
  });
});

test("every element type of the format is known, with its size", async () => {
  for (const [stored, dtype] of SAFETENSORS_DTYPES) {
    const bytes = DTYPE_BITS[dtype]; // 8 elements
    const { tensors } = await read(safetensors({ a: entry(stored, [8], [0, bytes]) }, new Uint8Array(bytes)));
    expect(tensors.get("a")).toMatchObject({ dtype, byteLength: bytes });
  }
});

test("float16: all 65536 values, against the definition", () => {
  const words = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const values = toFloat32(new Uint8Array(words.buffer), "float16", "t");
  for (const word of words) {
    const [sign, exponent, mantissa] = [word >> 15 ? -1 : 1, (word >> 10) & 31, word & 1023];
    const magnitude =
      exponent === 31
        ? mantissa
          ? Number.NaN
          : Infinity
        : exponent
          ? (1024 + mantissa) * 2 ** (exponent - 25)
          : mantissa * 2 ** -24;
    if (!Object.is(values[word], sign * magnitude)) expect.fail(`${word}: ${values[word]}, not ${sign * magnitude}`);
  }
});

test("files without tensors, with empty tensors anywhere, with spaces behind the header", async () => {
  expect((await read(safetensors({}))).tensors.size).toBe(0);
  expect((await read(safetensors({ __metadata__: null }))).tensors.size).toBe(0);
  const one = entry("U8", [1], [0, 1]);
  const { tensors } = await read(
    safetensors({ z: entry("F32", [0, 7], [0, 0]), a: one, y: entry("I64", [0], [1, 1]) }, new Uint8Array(1)),
  );
  expect([...tensors.keys()]).toEqual(["z", "a", "y"]);
  expect((await read(safetensors(`${JSON.stringify({ a: one })}     `, new Uint8Array(1)))).tensors.size).toBe(1);
});

describe("a malformed file is refused", () => {
  const data = new Uint8Array(4);
  const utf8 = (text: string) => new TextEncoder().encode(text);
  test.each<[string, Uint8Array, string]>([
    ["empty", new Uint8Array(0), "found 0"],
    ["nine bytes", new Uint8Array(9), "at least 10 bytes"],
    ["a header of 2^64 - 1 bytes", safetensors({}, data, 2n ** 64n - 1n), "should have 18446744073709551615 bytes"],
    ["a header one byte too long", safetensors({}, data, 7n), "only 6 follow"],
    ["an empty header", safetensors("", data), "an empty one"],
    ["a space before the header", safetensors(" {}"), "byte 32"],
    ["bytes that are not UTF-8", safetensors(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), "UTF-8"],
    ["no JSON", safetensors("{a}"), "line 1, column 2"],
    ["zeros behind the header", safetensors("{}\0\0"), "expected the end"],
    ["bytes of no tensor", safetensors({}, data), "expected 10 bytes"],
    ["metadata of a number", safetensors({ __metadata__: { a: 1 } }), '__metadata__."a": expected a string, found 1'],
    ["metadata of a list", safetensors({ __metadata__: [] }), "expected an object of strings, found []"],
    ["a Git LFS pointer", utf8("version https://git-lfs.github.com/spec/v1\noid sha256:1234"), "Git LFS pointer"],
    ["a web page", utf8("<!DOCTYPE html><html><head></head></html>"), "a web page"],
    ["a zip", utf8("PK\x03\x04 archive/data.pkl"), "a zip, as torch.save writes it"],
  ])("%s", async (_, bytes, message) => {
    const text = await femoError("E_FILE", () => read(bytes));
    expect(text).toContain(message);
    expect(text).toContain("file.safetensors");
  });

  test("a header above 100 MB, before it is read", async () => {
    const source = guardedSource(safetensors({}, new Uint8Array(64), 100_000_001n), 2 ** 40);
    expect(await femoError("E_FILE", () => readSafetensorsHeader(source))).toContain("the format allows 100000000");
    expect(source.bytesRead()).toBeLessThanOrEqual(64);
  });

  test("a tensor given twice", async () => {
    const text = `{"a": ${JSON.stringify(entry("F32", [1], [0, 4]))}, "\\u0061": ${JSON.stringify(entry("F32", [1], [0, 4]))}}`;
    expect(await femoError("E_FILE", () => read(safetensors(text, data)))).toContain('the key "a" a second time');
  });

  test.each<[string, unknown, string]>([
    ["no object", 3, "found 3"],
    ["null", null, "found null"],
    ["unknown type", entry("F128", [1], [0, 4]), 'found "F128"'],
    ["type of Object.prototype", entry("constructor", [1], [0, 4]), 'found "constructor"'],
    ["no type", { shape: [1], data_offsets: [0, 4] }, "found nothing"],
    ["negative size", entry("F32", [-1], [0, 4]), "found [-1]"],
    ["fraction", entry("F32", [0.5, 2], [0, 4]), "found [0.5, 2]"],
    ["text as size", entry("F32", ["1"], [0, 4]), 'found ["1"]'],
    ["shape of no list", entry("F32", 1, [0, 4]), "found 1"],
    ["size above 2^53", entry("F32", [2 ** 53], [0, 4]), "found [9007199254740992]"],
    ["product above 2^64", entry("F32", [2 ** 32, 2 ** 32], [0, 4]), "[4294967296, 4294967296], found 4"],
    ["bytes do not fit the shape", entry("F32", [3], [0, 4]), "expected 12 bytes for float32 [3], found 4"],
    ["half a byte", entry("F4", [7], [0, 4]), "expected 3.5 bytes"],
    ["three offsets", entry("F32", [1], [0, 4, 4]), "found [0, 4, 4]"],
    ["no offsets", { dtype: "F32", shape: [1] }, "found nothing"],
    ["end before begin", entry("F32", [1], [4, 0]), "4 to 0"],
    ["end behind the file", entry("F32", [2], [0, 8]), "0 to 8 of the data, which has 4"],
  ])("tensor: %s", async (_, value, message) => {
    const text = await femoError("E_WEIGHT", () => read(safetensors({ "blocks.0.weight": value }, data)));
    expect(text).toContain(message);
    expect(text).toContain('file.safetensors: tensor "blocks.0.weight"');
  });

  test("gaps and overlaps", async () => {
    const error = (header: unknown, size: number) =>
      femoError("E_WEIGHT", () => read(safetensors(header, new Uint8Array(size))));
    expect(await error({ a: entry("U8", [2], [0, 2]), b: entry("U8", [2], [1, 3]) }, 3)).toContain(
      'tensor "b": its bytes overlap with those of tensor "a" by 1',
    );
    expect(await error({ a: entry("U8", [1], [0, 1]), b: entry("U8", [1], [3, 4]) }, 4)).toContain(
      '2 bytes between it and tensor "a"',
    );
    expect(await error({ a: entry("U8", [1], [1, 2]) }, 2)).toContain("1 bytes between it and the header");
    expect(await error({ a: entry("U8", [2], [0, 2]), e: entry("F32", [0], [1, 1]) }, 2)).toContain('tensor "e"');
  });
});

describe("whatever the bytes, the result is a file whose tensors fill it, or a FemoError", () => {
  async function holds(bytes: Uint8Array): Promise<void> {
    const source = guardedSource(bytes);
    try {
      const { tensors } = await readSafetensorsHeader(source);
      let end: number | undefined;
      for (const { offset, byteLength, shape, dtype } of tensors.values()) {
        expect(offset).toBe(end ?? offset);
        end = offset + byteLength;
        expect(byteLength * 8).toBe(shape.reduce((a, b) => a * b, DTYPE_BITS[dtype]));
      }
      if (end !== undefined) expect(end).toBe(bytes.length);
    } catch (error) {
      if (!(error instanceof FemoError)) throw error;
      expect(error.message.length).toBeLessThan(1500);
    }
    expect(source.bytesRead()).toBeLessThanOrEqual(bytes.length + 64);
  }

  const valid = fc.constantFrom(...["dtypes", "names", "odd"].map((name) => golden(`${name}.safetensors`)));

  test("changed bytes", () =>
    fc.assert(
      fc.asyncProperty(
        valid,
        fc.array(fc.tuple(fc.nat(1700), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (bytes, changes) => {
          const changed = bytes.slice();
          for (const [at, byte] of changes) changed[at % changed.length] = byte;
          return holds(changed);
        },
      ),
      { numRuns: 1500 },
    ));

  test("cut off, or with bytes put in", () =>
    fc.assert(
      fc.asyncProperty(
        valid,
        fc.nat(1700),
        fc.uint8Array({ maxLength: 9 }),
        fc.boolean(),
        (bytes, where, more, cut) => {
          const at = where % bytes.length;
          return holds(Uint8Array.from([...bytes.slice(0, at), ...more, ...(cut ? [] : bytes.slice(at))]));
        },
      ),
      { numRuns: 1000 },
    ));

  const size = fc.oneof(fc.nat(4), fc.constantFrom(-1, 0.5, 2 ** 31, 2 ** 53 - 1, 1e300, "1", null));
  const tensor = fc.record(
    {
      dtype: fc.oneof(fc.constantFrom(...SAFETENSORS_DTYPES.keys()), fc.string()),
      shape: fc.oneof(fc.array(size, { maxLength: 4 }), fc.anything()),
      data_offsets: fc.oneof(fc.tuple(size, size), fc.anything()),
    },
    { requiredKeys: [] },
  );
  const header = fc.dictionary(
    fc.oneof(fc.string(), fc.constantFrom("__proto__", "__metadata__", "toString")),
    fc.oneof({ weight: 4, arbitrary: tensor }, fc.jsonValue()),
  );

  test("any header", () =>
    fc.assert(
      fc.asyncProperty(header, fc.uint8Array({ maxLength: 16 }), (value, data) => {
        const text = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? 1 : item));
        return holds(safetensors(text, data));
      }),
      { numRuns: 1500 },
    ));

  test("any bytes, and headers that lie about their length", () =>
    fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 80 }),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        async (bytes, length) => {
          await holds(bytes);
          await holds(safetensors("{}      ", bytes, length));
          await holds(safetensors("{}      ", bytes, length % 100n));
        },
      ),
      { numRuns: 500 },
    ));

  /** Valid files of random tensors: what was written is what is read. */
  test("round trip", () =>
    fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
          fc.array(fc.nat(3), { maxLength: 4 }),
          { maxKeys: 6 },
        ),
        fc.nat(7),
        async (shapes, padding) => {
          let at = 0;
          const entries = Object.entries(shapes).map(([name, shape]) => {
            const begin = at;
            at += 4 * shape.reduce((a, b) => a * b, 1);
            return [name, entry("F32", shape, [begin, at])] as const;
          });
          const data = Float32Array.from({ length: at / 4 }, (_, i) => i - 2.5);
          const text = JSON.stringify(Object.fromEntries(entries)) + " ".repeat(padding);
          const file = safetensors(text, new Uint8Array(data.buffer));
          const checkpoint = await Checkpoint.fromSources("c", [memoryByteSource("f", file)]);
          expect(checkpoint.names().sort()).toEqual(entries.map(([name]) => name).sort());
          for (const [name, { shape, data_offsets }] of entries) {
            expect(checkpoint.get(name)?.shape).toEqual(shape);
            const [begin, end] = data_offsets as [number, number];
            expect(await checkpoint.readTensor(name)).toEqual(data.slice(begin / 4, end / 4));
          }
        },
      ),
    ));
});

/** Tensors of random names, types of whole bytes and shapes. */
test("what safetensorsHeader writes is read as it was meant, at a multiple of eight", () =>
  fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(
        fc.record({
          name: fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__"),
          dtype: fc.constantFrom(...SAFETENSORS_DTYPES.values()).filter((dtype) => DTYPE_BITS[dtype] % 8 === 0),
          shape: fc.array(fc.nat(3), { maxLength: 4 }),
        }),
        { selector: ({ name }) => name, maxLength: 6 },
      ),
      async (tensors) => {
        const header = safetensorsHeader(tensors);
        expect(header.length % 8).toBe(0);
        const bytes = tensors.map(({ dtype, shape }) => shape.reduce((a, b) => a * b, DTYPE_BITS[dtype] / 8));
        const file = new Uint8Array(header.length + bytes.reduce((a, b) => a + b, 0));
        file.set(header);
        const read = await readSafetensorsHeader(guardedSource(file));
        expect(read.tensors.size).toBe(tensors.length);
        let at = header.length;
        for (const [i, { name, dtype, shape }] of tensors.entries()) {
          expect(read.tensors.get(name)).toMatchObject({ dtype, shape, offset: at, byteLength: bytes[i] });
          at += bytes[i] as number;
        }
      },
    ),
  ));
