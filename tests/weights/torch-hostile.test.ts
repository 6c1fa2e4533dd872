import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { DTYPE_BITS } from "../../src/weights/dtypes.js";
import { Checkpoint, memoryByteSource } from "../../src/weights/index.js";
import { readTorchFile } from "../../src/weights/torch.js";
import { femoError, guardedSource } from "./helpers.js";
import {
  instructions,
  type Py,
  pickle,
  sparseZip,
  tensor,
  torchEntries,
  torchFile,
  torchGolden,
  type ZipEntry,
  type ZipOptions,
  zip,
} from "./torch-helpers.js";

const weights = new Map([["w", tensor()]]);
const fails = (bytes: Uint8Array) => femoError("E_FILE", () => readTorchFile(guardedSource(bytes)));

describe("a zip", () => {
  const entries = torchEntries(weights);
  const changed = (change: Partial<ZipEntry>, name = "archive/data/0", options: ZipOptions = {}): Uint8Array =>
    zip(
      entries.map((entry) => (entry.name === name ? { ...entry, ...change } : entry)),
      options,
    );

  test.each([0, 1, 50, 60_000])("with %i bytes of padding before the data", async (padding) => {
    for (const wide of [false, true]) {
      const checkpoint = await Checkpoint.fromSources("c", [
        memoryByteSource("f.pt", changed({ padding }, undefined, { wide })),
      ]);
      expect(await checkpoint.readTensor("w")).toEqual(Float32Array.of(1.5));
    }
  });

  test("above 4 GiB", async () => {
    const size = 2 ** 33;
    const large = [
      ...torchEntries(
        new Map([
          ["end", tensor({ key: "1" })],
          ["w", tensor({ size: 2 ** 31, shape: [2 ** 16, 2 ** 15], strides: [2 ** 15, 1] })],
        ]),
        { 0: new Uint8Array(0) },
      ).map((entry) => (entry.name === "archive/data/0" ? { ...entry, size } : entry)),
    ];
    const last = { name: "archive/data/1", data: Uint8Array.of(0, 0, 0xc0, 0x3f), gap: size };
    const source = sparseZip("large.pt", [large[0], large[1], large[3], large[2], last] as ZipEntry[], { wide: true });
    const { tensors } = await readTorchFile(source);
    expect(tensors.get("w")?.byteLength).toBe(size);
    expect(tensors.get("end")?.offset).toBeGreaterThan(size);
    const checkpoint = await Checkpoint.fromSources("c", [source]);
    expect(await checkpoint.readTensor("end")).toEqual(Float32Array.of(1.5));
  });

  test.each<[string, Uint8Array, string]>([
    ["compressed", changed({ method: 8 }), '"archive/data/0" is compressed'],
    ["of two sizes", changed({ compressedSize: 3 }), '"archive/data/0" is compressed'],
    ["encrypted", changed({ flags: 1 }), '"archive/data/0" is encrypted'],
    ["into the next one", changed({ size: 5 }), '"archive/data/0" overlaps'],
    ["longer than the file", changed({ size: 0xfffffffe }), '"archive/data/0" overlaps'],
    ["longer than 2^53", changed({ size: 2 ** 60 }, undefined, { wide: true }), '"archive/data/0" overlaps'],
    ["at the place of another", changed({ offset: 0 }), "overlaps"],
    ["behind the directory", changed({ offset: 0x7fffffff }), '"archive/data/0" is outside the file'],
    ["behind 2^53", changed({ offset: 2 ** 60 }, undefined, { wide: true }), '"archive/data/0" is outside the file'],
    ["at a place without header", changed({ offset: 11 }, "archive/version"), "not where the directory says"],
    ["of another name there", changed({ localName: "archive/data/1" }), "not where the directory says"],
    ["twice", zip([...entries, entries[2] as ZipEntry]), 'two entries "archive/data/0"'],
    ["with a comment", zip(entries, { comment: "hi" }), "does not end with a zip's directory"],
    ["cut off", zip(entries).slice(0, -7), "It is truncated"],
    ["one header alone", Uint8Array.of(0x50, 0x4b, 3, 4), "It is truncated"],
    ["with fewer entries", zip(entries, { count: 5 }), "should have 5 entries, found 4"],
    ["with more entries", zip(entries, { count: 3 }), "more than its 3 entries"],
    ["with a directory outside", zip(entries, { directorySize: 2 ** 31 }), "outside the file"],
    ["in parts", zip(entries, { disk: 1 }), "one part of a zip in several"],
    ["in parts, 64 bits", zip(entries, { disk: 1, wide: true }), "one part of a zip in several"],
  ])("%s", async (_, bytes, message) => {
    expect(await fails(bytes)).toContain(message);
  });

  test("with a directory of gigabytes, before it is read", async () => {
    const filler = { name: "x", data: new Uint8Array(0), gap: 2 ** 34 };
    const source = sparseZip("f.pt", [...entries, filler], { wide: true, directoryStart: 0, directorySize: 2 ** 33 });
    expect(await femoError("E_FILE", () => readTorchFile(source))).toContain(
      "has 8589934592 bytes, more than 16777216",
    );
  });
});

describe("a pickle", () => {
  const program = (...codes: number[]) => fails(torchFile(Uint8Array.of(0x80, 2, ...codes, 0x2e)));
  /** A pickle that does some things over and over. */
  const repeated = (codes: number[], times: number, before: number[] = [], after: number[] = []): Uint8Array => {
    const middle = 2 + before.length;
    const end = middle + codes.length * times;
    const bytes = new Uint8Array(end + after.length + 1);
    bytes.set([0x80, 2, ...before]);
    for (let at = middle; at < end; at += codes.length) bytes.set(codes, at);
    bytes.set([...after, 0x2e], end);
    return bytes;
  };

  test.each<[string, number[], string]>([
    ["a stack that is empty", [0x52], "byte 2: the stack is empty"],
    ["a tuple across a mark", [0x4e, 0x28, 0x86], "the stack is empty"],
    ["no result", [], "the stack is empty"],
    ["two results", [0x4e, 0x4e], "1 values are left over"],
    ["a mark left over", [0x28, 0x4e], "1 values are left over"],
    ["items without a mark", [0x7d, 0x75], "no mark on the stack"],
    ["a key without a value", [0x7d, 0x28, 0x4e, 0x75], "a key without a value"],
    ["items for a number", [0x4b, 1, 0x4e, 0x4e, 0x73], "no dictionary"],
    ["an item for a tuple", [0x29, 0x4e, 0x61], "something is changed that cannot be"],
    ["attributes for a number", [0x4b, 1, 0x7d, 0x62], "something is changed that cannot be"],
    ["a value not memorised", [0x68, 7], "value 7 is used before"],
    ["a call of a number", [0x4b, 1, 0x29, 0x52], "no function"],
    [
      "a call of a storage's class",
      [...instructions({ global: "torch.FloatStorage" }), 0x29, 0x52],
      "torch.FloatStorage",
    ],
    ["a call without arguments", [...instructions({ global: "torch.Size" }), 0x4e, 0x52], "without arguments"],
    ["a dictionary with arguments", instructions({ call: "collections.OrderedDict", args: [[]] }), "pairs, or empty"],
    ["a storage that is none", instructions({ id: ["storage", null, "0", "cpu", 1] }), "the class, name and size"],
    [
      "a storage of another kind",
      instructions({ id: ["module", { global: "torch.FloatStorage" }, "0", "cpu", 1] }),
      "the class",
    ],
    ["a persistent id that is a text", instructions({ id: "0" }), "the class, name and size"],
    ["a tensor of negative size", instructions(tensor({ shape: [-1] })), "the shape and the strides"],
    ["a tensor of other strides", instructions(tensor({ strides: [1, 1] })), "the shape and the strides"],
    [
      "a tensor of 65 axes",
      instructions(tensor({ shape: new Array(65).fill(1), strides: new Array(65).fill(1) })),
      "64 axes",
    ],
    ["a tensor at a negative offset", instructions(tensor({ offset: -1 })), "the offset"],
    [
      "a tensor without element type",
      instructions(tensor({ storage: "torch.storage.UntypedStorage" })),
      "element type",
    ],
    [
      "a parameter of a number",
      instructions({ call: "torch._utils._rebuild_parameter", args: [1, true, null] }),
      "of a parameter",
    ],
    [
      "a storage whose size has 200 bytes",
      instructions({
        id: [
          "storage",
          { global: "torch.FloatStorage" },
          "0",
          "cpu",
          { bytes: [0x8a, 200, ...new Array(200).fill(1)] },
        ],
      }),
      "the class, name and size",
    ],
    ["a number longer than the file", [0x8a, 255, 1, 1], "it ends after"],
    ["a text longer than the file", [0x58, 255, 255, 255, 255], "it ends after"],
    ["a text that is not UTF-8", [0x8c, 1, 255], "not UTF-8"],
    ["a global without an end", [0x63, ...new Array(1200).fill(97)], "without an end"],
    ["a global of numbers", [0x4b, 1, 0x4b, 1, 0x93], "without a name"],
    ["protocol 6", [0x80, 6], "protocol 2 to 5, found 6"],
    ["an instruction of old protocols", [0x49, 0x31, 0x0a], "the instruction 0x49"],
    ["an extension registry", [0x82, 1], "the instruction 0x82"],
    ["no instruction", [0xff], "the instruction 0xff"],
  ])("with %s", async (_, codes, message) => {
    const text = await program(...codes);
    expect(text).toContain(message);
    expect(text).toMatch(/^file\.safetensors: its pickle, byte \d+: /);
  });

  test.each([
    "builtins.eval",
    "os.system",
    "posix.system",
    "torch.load",
    "torch._utils._rebuild_sparse_tensor",
    "torch.FloatStorage.x",
    "__main__.toString",
    "constructor.constructor",
    "numpy.core.multiarray._reconstruct",
  ])("that names %s", async (global) => {
    for (const value of [{ global }, { call: global, args: ["1"] }]) {
      expect(await fails(torchFile(new Map([["a", value]])))).toContain(`"${global}", which tensors do not need`);
    }
    const parts = global.split(".");
    const named = [...instructions(parts.slice(0, -1).join(".")), ...instructions(parts.at(-1) as string), 0x93];
    expect(await program(...named)).toContain(`"${global}"`);
  });

  test("without its protocol, or empty", async () => {
    expect(await fails(torchFile(Uint8Array.of(0x4e, 0x2e)))).toContain("does not start with its protocol");
    expect(await fails(torchFile(new Uint8Array(0)))).toContain("does not start with its protocol");
  });

  const million = 2 ** 20;
  test.each<[string, Uint8Array, string]>([
    ["marks", repeated([0x28], million), "values are on the stack"],
    ["values", repeated([0x4e], 100_001), "values are on the stack"],
    ["dictionaries", repeated([0x7d, 0x61], million, [0x5d]), "more than 1048576 objects"],
    ["items of one dictionary", repeated([0x4e, 0x4e, 0x73], million, [0x7d]), "more than 1048576 objects"],
    ["tuples in each other", repeated([0x85], million, [0x4e]), "more than 1048576 objects"],
    ["memorised values", repeated([0x94], million + 1, [0x4e]), "more than 1048576 objects"],
  ])("with too many %s", async (_, bytes, message) => {
    expect(await fails(torchFile(bytes))).toContain(message);
  });

  test("nested as deeply as it may be: nothing calls itself", async () => {
    expect(await fails(torchFile(repeated([0x85], 500_000, [0x29])))).toContain("found a tuple of 1");
  });

  test("of a million texts: time is bounded by its length", async () => {
    const bytes = repeated([0x8c, 1, 97, 0x61], million, [0x5d]);
    const start = process.cpuUsage();
    expect(await fails(torchFile(bytes))).toContain("found a list");
    expect(process.cpuUsage(start).user).toBeLessThan(5e6); // microseconds
  });

  test("in a loop with itself", async () => {
    // d = {}; d["state_dict"] = d
    const loop = [0x7d, 0x71, 0, ...instructions("state_dict"), 0x68, 0, 0x73];
    expect(await program(...loop)).toContain('"state_dict": a dictionary of 1');
  });

  test("above 32 MB, before it is read", async () => {
    const entry = { name: "archive/data.pkl", data: new Uint8Array(0), size: 2 ** 30 };
    const source = sparseZip("f.pt", [entry, { name: "x", data: new Uint8Array(0), gap: 2 ** 30 }]);
    expect(await femoError("E_FILE", () => readTorchFile(source))).toContain("its data.pkl has 1073741824 bytes");
  });
});

describe("whatever the bytes, the result is tensors inside the file, or a FemoError", () => {
  async function holds(bytes: Uint8Array): Promise<void> {
    const source = guardedSource(bytes);
    try {
      const { tensors } = await readTorchFile(source);
      for (const { offset, byteLength, shape, dtype } of tensors.values()) {
        expect(byteLength * 8).toBe(shape.reduce((a, b) => a * b, DTYPE_BITS[dtype]));
        expect(offset).toBeGreaterThan(0);
        expect(offset + byteLength).toBeLessThanOrEqual(bytes.length);
      }
    } catch (error) {
      if (!(error instanceof FemoError)) throw error;
      expect(error.message.length).toBeLessThan(2000);
    }
    expect(source.bytesRead()).toBeLessThanOrEqual(2 * bytes.length + 1000);
  }

  const valid = fc.constantFrom(
    ...["kinds", "training", "protocol-2", "protocol-4", "transposed", "module", "legacy", "legacy"].map((name) =>
      torchGolden(`${name}.pt`),
    ),
    zip(torchEntries(weights)),
  );

  test("changed bytes", () =>
    fc.assert(
      fc.asyncProperty(
        valid,
        fc.array(fc.tuple(fc.nat(8000), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (bytes, changes) => {
          const changed = bytes.slice();
          for (const [at, byte] of changes) changed[at % changed.length] = byte;
          return holds(changed);
        },
      ),
      { numRuns: 1500 },
    ));

  test("changed bytes of the pickle alone", () => {
    const start = torchGolden("kinds.pt").indexOf(0x80);
    return fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(2500), fc.nat(255)), { minLength: 1, maxLength: 3 }), (changes) => {
        const changed = torchGolden("kinds.pt");
        for (const [at, byte] of changes) changed[start + at] = byte;
        return holds(changed);
      }),
      { numRuns: 1000 },
    );
  });

  test("cut off, or with bytes put in", () =>
    fc.assert(
      fc.asyncProperty(
        valid,
        fc.nat(8000),
        fc.uint8Array({ maxLength: 9 }),
        fc.boolean(),
        (bytes, where, more, cut) => {
          const at = where % bytes.length;
          return holds(Uint8Array.from([...bytes.slice(0, at), ...more, ...(cut ? [] : bytes.slice(at))]));
        },
      ),
      { numRuns: 500 },
    ));

  const size = fc.oneof(fc.nat(4), fc.constantFrom(-1, 2 ** 31, 2 ** 53 - 1));
  const leaf: fc.Arbitrary<Py> = fc.oneof(
    fc.constantFrom<Py>(
      null,
      true,
      "storage",
      "ema",
      "0",
      { global: "torch.FloatStorage" },
      { global: "torch.uint16" },
    ),
    size,
    fc
      .record({
        ...{ shape: fc.array(size, { maxLength: 3 }), strides: fc.array(size, { maxLength: 3 }), offset: size, size },
        key: fc.constantFrom("0", "1"),
        storage: fc.constantFrom("torch.FloatStorage", "torch.HalfStorage", "torch.storage.UntypedStorage"),
      })
      .map(tensor),
    fc.uint8Array({ maxLength: 5 }).map((bytes): Py => ({ bytes: [...bytes] })),
  );
  const { value } = fc.letrec<{ value: Py }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      leaf,
      fc.array(tie("value"), { maxLength: 8 }),
      fc
        .array(fc.tuple(fc.oneof(fc.string(), tie("value")), tie("value")), { maxLength: 4 })
        .map((pairs): Py => new Map(pairs)),
      fc.array(tie("value"), { maxLength: 8 }).map((args): Py => ({ call: "torch._utils._rebuild_tensor_v3", args })),
      tie("value").map((id): Py => ({ id })),
    ),
  }));

  test("any values", () =>
    fc.assert(
      fc.asyncProperty(value, (any) => holds(torchFile(any))),
      { numRuns: 500 },
    ));

  const codes = [
    0x28, 0x29, 0x4e, 0x51, 0x52, 0x5d, 0x61, 0x62, 0x65, 0x73, 0x74, 0x75, 0x7d, 0x81, 0x85, 0x86, 0x87, 0x93, 0x94,
  ];
  const step = fc.oneof(
    fc.constantFrom(...codes.map((code) => [code])),
    fc.tuple(fc.constantFrom(0x4b, 0x68, 0x71), fc.nat(3)),
    leaf.map(instructions),
  );

  test("any instructions", () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), (steps) =>
        holds(torchFile(Uint8Array.of(0x80, 2, ...steps.flat(), 0x2e))),
      ),
      { numRuns: 1500 },
    ));

  /** Row-major tensors anywhere in shared storages are read as they were written. */
  test("round trip", () =>
    fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.string({ unit: "grapheme" }),
          fc.record({
            shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 4 }),
            offset: fc.nat(5),
            key: fc.nat(2),
          }),
          { maxKeys: 6 },
        ),
        async (fields) => {
          const storages = [0, 1, 2].map((key) => Float32Array.from({ length: 90 }, (_, i) => 100 * key + i));
          const tensors = Object.entries(fields).map(([name, { shape, offset, key }]): [Py, Py] => {
            const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
            return [name, tensor({ key: String(key), size: 90, shape, strides, offset })];
          });
          const bytes = storages.map((data) => new Uint8Array(data.buffer));
          const file = torchFile(new Map(tensors), Object.fromEntries(bytes.entries()));
          const checkpoint = await Checkpoint.fromSources("c", [memoryByteSource("f.pt", file)]);
          expect(checkpoint.names().sort()).toEqual(Object.keys(fields).sort());
          for (const [name, { shape, offset, key }] of Object.entries(fields)) {
            const count = shape.reduce((a, b) => a * b, 1);
            expect(checkpoint.get(name)?.shape).toEqual(shape);
            expect(await checkpoint.readTensor(name)).toEqual(storages[key]?.slice(offset, offset + count));
          }
        },
      ),
      { numRuns: 200 },
    ));
});

describe("the format before PyTorch 1.6", () => {
  const [magic, version] = [
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e],
    [0x80, 2, 0x4d, 0xe9, 3, 0x2e],
  ];
  const system = (little = true): Py => new Map<Py, Py>([["little_endian", little]]);
  const keyList = (...keys: string[]): Py => ({ bytes: [0x5d, 0x28, ...keys.flatMap(instructions), 0x65] });
  const storage = (values: number[], count = values.length): number[] => [
    ...new Uint8Array(BigUint64Array.of(BigInt(count)).buffer),
    ...new Uint8Array(Float32Array.from(values).buffer),
  ];
  const old = (contents: Py, keys: Py, data: number[], little = true): Uint8Array =>
    Uint8Array.from([
      ...[magic, version, pickle(system(little)), pickle(contents), pickle(keys)].flatMap((part) => [...(part ?? [])]),
      ...data,
    ]);
  const two = new Map([
    ["a", tensor({ key: "5", size: 2, shape: [2] })],
    ["b", tensor({ key: "x", size: 1, offset: 0 })],
  ]);

  test("storages lie in the order of their names", async () => {
    const file = old(two, keyList("x", "5"), [...storage([7]), ...storage([1, 2])]);
    const checkpoint = await Checkpoint.fromSources("c", [memoryByteSource("f.pth", file)]);
    expect([...(await checkpoint.readTensor("a"))]).toEqual([1, 2]);
    expect([...(await checkpoint.readTensor("b"))]).toEqual([7]);
  });

  test("a dictionary of Python 2, and tensors of PyTorch before 0.4", async () => {
    const text = (value: string): number[] => [0x55, value.length, ...new TextEncoder().encode(value)];
    const id = ["storage", { global: "torch.FloatStorage" }, "5", "cpu", 1, null] as Py[];
    const rebuilt: Py = { call: "torch._utils._rebuild_tensor", args: [{ id }, 0, [1], [1]] };
    const pair = [0x5d, 0x28, ...text("w"), ...instructions(rebuilt), 0x65];
    const pairs: Py = { bytes: [0x5d, 0x28, ...pair, 0x65] };
    const file = old({ call: "collections.OrderedDict", args: [pairs] }, keyList("5"), storage([3]));
    const checkpoint = await Checkpoint.fromSources("c", [memoryByteSource("f.pth", file)]);
    expect([...(await checkpoint.readTensor("w"))]).toEqual([3]);
  });

  const data = [...storage([1, 2]), ...storage([7])];
  test.each<[string, Uint8Array, string]>([
    ["big-endian", old(two, keyList("5", "x"), data, false), "little-endian"],
    ["cut off in a storage", old(two, keyList("5", "x"), data.slice(0, -1)), "is cut off"],
    ["cut off before a storage", old(two, keyList("5", "x"), data.slice(0, -9)), "is cut off"],
    ["with more elements than it says", old(two, keyList("5", "x"), [...storage([1, 2], 3), ...data]), "it has 3"],
    ["with a count of 2^63", old(two, keyList("5", "x"), new Array(16).fill(255)), "it has 18446744073709551615"],
    ["with a storage that nobody has", old(two, keyList("5", "x", "y"), data), "none of its tensors names"],
    ["with a storage twice", old(two, keyList("5", "5"), data), "a storage twice"],
    ["without a list of storages", old(two, 3, data), "names of the storages"],
    [
      "of a part of another storage",
      old({ id: ["storage", { global: "torch.FloatStorage" }, "5", "cpu", 1, ["v", 0, 1]] }, keyList(), []),
      "no part of another",
    ],
    [
      "of one storage in two sizes",
      old([...[1, 2].map((size) => tensor({ key: "5", size }))], keyList("5"), data),
      "two kinds or sizes",
    ],
  ])("%s", async (_, bytes, message) => {
    expect(await fails(bytes)).toContain(message);
  });

  test("a tensor whose storage is not in the list", async () => {
    const file = old(two, keyList("5"), storage([1, 2]));
    expect(await femoError("E_WEIGHT", () => readTorchFile(guardedSource(file)))).toContain("in the storage x");
  });
});
