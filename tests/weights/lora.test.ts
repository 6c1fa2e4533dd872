import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import {
  Checkpoint,
  type DerivedTensor,
  type LoraAdapter,
  type LoraTarget,
  memoryByteSource,
} from "../../src/weights/index.js";
import { mergeLora } from "../../src/weights/lora.js";
import { addLowRank, type LowRank } from "../../src/weights/low-rank.js";
import { femoError, safetensors } from "./helpers.js";
import { type Entry, entry, floatFile, floatsOf } from "./lora-helpers.js";

/** Modules by their own names; "qk" is q and k in one, "kq" swapped halves of k. */
const TARGETS: Readonly<Record<string, LoraTarget<"net">>> = {
  q: { component: "net", modules: ["q"] },
  k: { component: "net", modules: ["k"] },
  also_q: { component: "net", modules: ["q"] },
  qk: { component: "net", modules: ["q", "k"] },
  swapped_k: { component: "net", modules: ["k"], swapped: true },
  gone: { component: "net", modules: ["gone"] },
};
const targetOf = (path: string) => (Object.hasOwn(TARGETS, path) ? TARGETS[path] : undefined);

const Q = entry([2, 3], [1, -2, 0.5, 4, 0, -0]);
const K = entry([4, 3]);
let net: Checkpoint;
beforeAll(async () => {
  net = await floatFile({ "q.weight": Q, "q.bias": entry([2]), "k.weight": K });
});

const merge = (...adapters: LoraAdapter[]) => mergeLora({ net }, adapters, targetOf);
/** Merges one file. */
const mergeFile = async (tensors: Record<string, Entry>, weight = 1, metadata?: Record<string, string>) =>
  merge({ checkpoint: await floatFile(tensors, metadata), weight });
const refusal = (tensors: Record<string, Entry>, metadata?: Record<string, string>): Promise<string> =>
  femoError("E_WEIGHT", () => mergeFile(tensors, 1, metadata));

const derivedOf = async (merged: ReturnType<typeof merge>): Promise<Record<string, DerivedTensor>> =>
  Object.fromEntries(((await merged).derived.get("net") ?? []).map((tensor) => [tensor.name, tensor]));
const valuesOf = async (merged: ReturnType<typeof merge>): Promise<Record<string, number[]>> => {
  const values: Record<string, number[]> = {};
  for (const [name, tensor] of Object.entries(await derivedOf(merged))) {
    values[name] = [...floatsOf(await tensor.make())];
  }
  return values;
};

const down = entry([1, 3], [1, 2, 4]);
const up = entry([2, 1], [8, -16]);
const lora = { "q.lora_A.weight": down, "q.lora_B.weight": up };
/** q with u · d added. */
const withProduct = (factor: number, u = [8, -16], d = [1, 2, 4]): number[] =>
  Array.from(Q.values, (w, i) => w + factor * (u[Math.floor(i / 3)] as number) * (d[i % 3] as number));

describe("the sum", () => {
  test("of rank one is exact where float32 holds it", async () => {
    expect(await valuesOf(mergeFile(lora))).toEqual({ "q.weight": withProduct(1) });
    expect(await valuesOf(mergeFile(lora, -0.5))).toEqual({ "q.weight": withProduct(-0.5) });
  });

  test("with weight 0 changes no tensor at all", async () => {
    expect((await merge({ checkpoint: await floatFile(lora), weight: 0 })).derived.get("net") ?? []).toEqual([]);
    const other = { checkpoint: await floatFile(lora), weight: 1 };
    const both = merge({ checkpoint: await floatFile(lora), weight: 0 }, other);
    expect(await valuesOf(both)).toEqual(await valuesOf(merge(other)));
  });

  test("of two adapters is that of both, in either order", async () => {
    const wide = {
      "qk.lora_down.weight": entry([2, 3]),
      "qk.lora_up.weight": entry([6, 2]),
      "qk.alpha": entry([], [3]),
    };
    const [a, b] = [
      { checkpoint: await floatFile(lora), weight: 0.25 },
      { checkpoint: await floatFile(wide), weight: -2 },
    ];
    const [ab, ba, onlyA, onlyB] = await Promise.all([merge(a, b), merge(b, a), merge(a), merge(b)].map(valuesOf));
    for (const name of ["q.weight", "k.weight"]) {
      const base = Array.from((name === "q.weight" ? Q : K).values);
      expect(ab?.[name]).toEqual(ba?.[name]);
      expect(ab?.[name]).toEqual(
        base.map((w, i) => w + ((onlyA?.[name]?.[i] ?? w) - w) + ((onlyB?.[name]?.[i] ?? w) - w)),
      );
    }
  });

  test("has float64 within and is rounded once, whatever the sizes", () => {
    const random = fc.sample(fc.float({ min: -1, max: 1, noNaN: true, noDefaultInfinity: true }), {
      numRuns: 9000,
      seed: 3,
    });
    let next = 0;
    const floats = (count: number) =>
      Float32Array.from({ length: count }, () => random[next++ % random.length] as number);
    for (const [rows, columns, ranks] of [
      [1, 1, [1]],
      [3, 5, [2, 5]],
      [2, 513, [4]],
      [5, 1030, [1, 3, 1]],
      [7, 3, []],
    ] as const) {
      const values = floats(rows * columns);
      const products: LowRank[] = ranks.map((rank) => ({
        ...{ scale: floats(1)[0] as number, up: floats((rows + 2) * rank), down: floats(rank * columns), rank },
        rowOf: (row) => rows + 1 - row,
      }));
      const expected = Float64Array.from(values, (w, i) => {
        const [row, column] = [Math.floor(i / columns), i % columns];
        let sum = w;
        for (const { scale, up, down, rank, rowOf } of products)
          for (let k = 0; k < rank; k++)
            sum += scale * (up[rowOf(row) * rank + k] as number) * (down[k * columns + column] as number);
        return sum;
      });
      addLowRank(values, columns, products);
      for (const [i, value] of expected.entries()) {
        expect(Math.abs((values[i] as number) - value)).toBeLessThanOrEqual(2 ** -24 * Math.abs(value) + 1e-14);
      }
    }
  });
});

describe("alpha", () => {
  const ranks = { "q.lora_down.weight": entry([2, 3]), "q.lora_up.weight": entry([2, 2]) };
  const at = async (alpha: Record<string, Entry>, config?: unknown): Promise<number[] | undefined> => {
    const metadata = config === undefined ? undefined : { lora_adapter_metadata: JSON.stringify(config) };
    return (await valuesOf(mergeFile({ ...ranks, ...alpha }, 1, metadata)))["q.weight"];
  };
  const scaled = async (weight: number) => (await valuesOf(mergeFile(ranks, weight)))["q.weight"];

  test("of a tensor is over r; 0 means r, as kohya's scripts have it", async () => {
    expect(await at({ "q.alpha": entry([], [1]) })).toEqual(await scaled(0.5));
    expect(await at({ "q.alpha": entry([1], [8]) })).toEqual(await scaled(4));
    expect(await at({ "q.alpha": entry([], [0]) })).toEqual(await scaled(1));
  });

  test("may be stored as an integer", async () => {
    const floats = new Uint8Array(
      Float32Array.from([...Object.values(ranks).flatMap((e) => [...Array.from(e.values)])]).buffer,
    );
    const integers: readonly (readonly [string, Uint8Array])[] = [
      ["I64", new Uint8Array(BigInt64Array.of(-4n).buffer)],
      ["I8", new Uint8Array(Int8Array.of(-4).buffer)],
      ["I32", new Uint8Array(Int32Array.of(-4).buffer)],
    ];
    for (const [dtype, bytes] of integers) {
      const header = {
        "q.lora_down.weight": { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
        "q.lora_up.weight": { dtype: "F32", shape: [2, 2], data_offsets: [24, 40] },
        "q.alpha": { dtype, shape: [], data_offsets: [40, 40 + bytes.length] },
      };
      const file = safetensors(header, Uint8Array.from([...floats, ...bytes]));
      const checkpoint = await Checkpoint.fromSources("integer", [memoryByteSource("integer", file)]);
      expect((await valuesOf(merge({ checkpoint, weight: 1 })))["q.weight"]).toEqual(await scaled(-2));
    }
  });

  test("of the header holds where no tensor says one: by pattern, for all, over the root of r", async () => {
    expect(await at({}, { "net.r": 2, "net.lora_alpha": 4 })).toEqual(await scaled(2));
    expect(await at({}, { r: 2, lora_alpha: 4 })).toEqual(await scaled(2));
    expect(await at({}, { "other.r": 2, "other.lora_alpha": 4 })).toEqual(await scaled(1));
    expect(await at({}, { lora_alpha: 4, alpha_pattern: { q: 1, k: 9 } })).toEqual(await scaled(0.5));
    expect(await at({}, { lora_alpha: 4, alpha_pattern: { "^q": 1 } })).toEqual(await scaled(0.5));
    expect(await at({}, { lora_alpha: 4, alpha_pattern: { uq: 1 } })).toEqual(await scaled(2));
    expect(await at({}, { lora_alpha: 4, use_rslora: true })).toEqual(await scaled(4 / Math.sqrt(2)));
    expect(await at({ "q.alpha": entry([], [1]) }, { lora_alpha: 4 })).toEqual(await scaled(0.5));
  });

  test("that is no number, or another kind of adapter, in the header is refused", async () => {
    for (const config of [
      { lora_alpha: "4" },
      { lora_alpha: [] },
      { alpha_pattern: 3 },
      { alpha_pattern: { q: "x" } },
      { alpha_pattern: { "(q|k)": 1 } },
      { use_dora: true },
    ]) {
      const message = await refusal(ranks, { lora_adapter_metadata: JSON.stringify(config) });
      expect(message).toContain("lora_adapter_metadata");
      expect(message).toContain(Object.keys(config)[0]);
    }
    for (const text of ["", "[1]", "null", "{", '{"r":NaN}']) {
      await femoError("E_FILE", () => mergeFile(ranks, 1, { lora_adapter_metadata: text }));
    }
  });
});

describe("rows", () => {
  const fused = { "qk.lora_down.weight": down, "qk.lora_up.weight": entry([6, 1], [1, 2, 3, 4, 5, 6]) };
  const added = (base: Entry, ups: readonly number[]) =>
    Array.from(base.values, (w, i) => w + (ups[Math.floor(i / 3)] as number) * ([1, 2, 4][i % 3] as number));

  test("of a fused up go to their modules in order, and all of down to each", async () => {
    expect(await valuesOf(mergeFile(fused))).toEqual({
      "q.weight": added(Q, [1, 2]),
      "k.weight": added(K, [3, 4, 5, 6]),
    });
  });

  test("that are swapped are those of up alone", async () => {
    const swapped = { "swapped_k.down.weight": down, "swapped_k.up.weight": entry([4, 1], [1, 2, 3, 4]) };
    expect(await valuesOf(mergeFile(swapped))).toEqual({ "k.weight": added(K, [3, 4, 1, 2]) });
  });

  test("of a bias are scaled as the product is", async () => {
    const biased = { ...lora, "q.lora_B.bias": entry([2], [16, 32]), "q.alpha": entry([], [0.5]) };
    const values = await valuesOf(mergeFile(biased, 3));
    expect(values).toEqual({ "q.weight": withProduct(1.5), "q.bias": [1 / 8 + 24, 2 / 8 + 48] });
  });
});

describe("a derived tensor", () => {
  test("is float32, has the base's shape, and names all files it is made from", async () => {
    const adapters = [await floatFile(lora), await floatFile(lora)];
    const derived = await derivedOf(merge(...adapters.map((checkpoint) => ({ checkpoint, weight: 1 }))));
    expect(derived["q.weight"]).toMatchObject({ dtype: "float32", shape: [2, 3] });
    expect(derived["q.weight"]?.files).toEqual([net.name, ...adapters.map(({ name }) => name)]);
    expect(await derived["q.weight"]?.make()).toEqual(await derived["q.weight"]?.make());
  });

  test("of a base in bfloat16 keeps what bfloat16 would round away", async () => {
    const header = { "q.weight": { dtype: "BF16", shape: [2, 3], data_offsets: [0, 12] } };
    const bits = new Uint8Array(Uint16Array.of(0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80).buffer); // ones
    const half = await Checkpoint.fromSources("half", [memoryByteSource("half", safetensors(header, bits))]);
    const merged = mergeLora({ net: half }, [{ checkpoint: await floatFile(lora), weight: 2 ** -16 }], targetOf);
    const expected = [8, -16].flatMap((u) => [1, 2, 4].map((d) => 1 + (u * d) / 2 ** 16));
    expect((await valuesOf(merged))["q.weight"]).toEqual(expected);
  });

  test("has another recipe with another weight, alpha, tensor or set of files", async () => {
    const checkpoint = await floatFile(lora);
    const keyOf = async (...adapters: LoraAdapter[]) => {
      const { recipe, files } = (await derivedOf(merge(...adapters)))["q.weight"] as DerivedTensor;
      return JSON.stringify([recipe, files]);
    };
    const key = await keyOf({ checkpoint, weight: 1 });
    expect(await keyOf({ checkpoint, weight: 1 })).toBe(key);
    const [alpha, other, fused] = await Promise.all([
      floatFile({ ...lora, "q.alpha": entry([], [2]) }),
      floatFile(lora),
      floatFile({ "qk.lora_A.weight": down, "qk.lora_B.weight": entry([6, 1]) }),
    ]);
    const keys = [
      key,
      await keyOf({ checkpoint, weight: 1.0000001 }),
      await keyOf({ checkpoint: alpha, weight: 1 }),
      await keyOf({ checkpoint: other, weight: 1 }),
      await keyOf({ checkpoint: fused, weight: 1 }),
      await keyOf({ checkpoint, weight: 1 }, { checkpoint: other, weight: 0.5 }),
      await keyOf({ checkpoint, weight: 0.5 }, { checkpoint: other, weight: 1 }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });
});

describe("what is not merged is said", () => {
  test("names without a place, and tensors that are no part of LoRA", async () => {
    const { notes } = await mergeFile({
      ...lora,
      "gone.lora_A.weight": down,
      "gone.lora_B.weight": up,
      "elsewhere.lora_A.weight": down,
      "elsewhere.lora_B.weight": up,
      "q.weight": up,
      "k.alpha": entry([], [1]),
    });
    expect(notes).toHaveLength(1);
    expect(notes[0]).toMatch(/4 of its entries have no place/);
    for (const name of ["gone", "elsewhere", "q.weight", "k.alpha"]) expect(notes[0]).toContain(`"${name}"`);
  });

  test("a file with nothing for the model is an error", async () => {
    const message = await refusal({ "elsewhere.lora_A.weight": down, "elsewhere.lora_B.weight": up });
    expect(message).toMatch(/nothing in it is a LoRA for this model[\s\S]*elsewhere/);
    await refusal({});
    await refusal({ "gone.lora_A.weight": down, "gone.lora_B.weight": up });
  });
});

describe("refused by name:", () => {
  test.each([
    ["q.dora_scale", "DoRA"],
    ["q.lora_magnitude_vector", "DoRA"],
    ["q.lora_magnitude_vector.weight", "DoRA"],
    ["q.lokr_w1", "LoKr"],
    ["q.hada_w1_a", "LoHa"],
    ["q.lora_mid.weight", "LoCon"],
    ["q.oft_blocks", "OFT"],
    ["q.boft_R", "OFT"],
    ["q.a1.weight", "GLoRA"],
    ["q.b2.weight", "GLoRA"],
    ["q.on_input", "(IA)³"],
    ["q.diff", "whole differences"],
    ["q.diff_b", "whole differences"],
    ["double_blocks.0.img_attn.norm.query_norm.scale", "control LoRA"],
  ])("%s", async (name, kind) => {
    const message = await refusal({ ...lora, [name]: entry([1], [1]) });
    expect(message).toContain(`"${name}"`);
    expect(message).toContain(kind);
  });

  test("half a pair, a pair twice, two names for the same weights", async () => {
    expect(await refusal({ "q.lora_A.weight": down })).toMatch(/"q\.lora_A\.weight": its up matrix is missing/);
    expect(await refusal({ "q.lora_B.weight": up })).toMatch(/"q\.lora_B\.weight": its down matrix is missing/);
    expect(await refusal({ "q.lora_B.bias": up })).toMatch(/"q\.lora_B\.bias": its down matrix is missing/);
    expect(await refusal({ ...lora, "q.lora_down.weight": down })).toMatch(/again as "q\.lora_A\.weight"/);
    const twice = { ...lora, "also_q.lora_A.weight": down, "also_q.lora_B.weight": up };
    expect(await refusal(twice)).toMatch(/"also_q\.lora_B\.weight": "q" is for the same weights/);
  });

  test("shapes that do not fit", async () => {
    const cases: readonly (readonly [string, Entry, Entry])[] = [
      ["q.lora_A.weight", entry([1, 4]), up],
      ["q.lora_A.weight", entry([3]), up],
      ["q.lora_A.weight", entry([1, 3, 2, 1]), up],
      ["q.lora_A.weight", entry([1, 3, 1]), up],
      ["q.lora_A.weight", entry([0, 3]), entry([2, 0])],
      ["q.lora_A.weight", entry([9, 3]), entry([2, 9])],
      ["q.lora_B.weight", down, entry([3, 1])],
      ["q.lora_B.weight", down, entry([2, 2])],
      ["q.lora_B.weight", down, entry([1, 2])],
      ["q.lora_B.weight", down, entry([])],
    ];
    for (const [name, a, b] of cases) {
      expect(await refusal({ "q.lora_A.weight": a, "q.lora_B.weight": b })).toContain(`tensor "${name}": `);
    }
    expect(await refusal({ ...lora, "q.lora_B.bias": entry([3]) })).toContain('"q.lora_B.bias": expected [2]');
    expect(await refusal({ ...lora, "q.alpha": entry([2]) })).toContain('"q.alpha": expected one number');
    const biased = { "k.lora_A.weight": down, "k.lora_B.weight": entry([4, 1]), "k.lora_B.bias": entry([4]) };
    expect(await refusal(biased)).toMatch(/"k\.lora_B\.bias": "k" of the model has no bias/);
  });

  test("values that are not finite, in any tensor, and sums that overflow", async () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      expect(await refusal({ ...lora, "q.alpha": entry([], [value]) })).toContain('"q.alpha"');
      const bad: Record<string, Entry> = {
        "q.lora_A.weight": entry([1, 3], [0, value, 0]),
        "q.lora_B.weight": entry([2, 1], [value, 0]),
        "q.lora_B.bias": entry([2], [0, value]),
      };
      for (const [name, tensor] of Object.entries(bad)) {
        const merged = mergeFile({ ...lora, [name]: tensor });
        expect(await femoError("E_WEIGHT", () => valuesOf(merged))).toContain(`"${name}": expected finite values`);
      }
      await femoError("E_OPTION", () => mergeFile(lora, value));
    }
    const message = await femoError("E_WEIGHT", () => valuesOf(mergeFile(lora, 1e300)));
    expect(message).toMatch(/"q\.weight": expected finite values with lora-\d+\.safetensors merged in/);
  });

  test("elements that are no floats", async () => {
    const header = {
      "q.lora_A.weight": { dtype: "U8", shape: [1, 3], data_offsets: [0, 3] },
      "q.lora_B.weight": { dtype: "U8", shape: [2, 1], data_offsets: [3, 5] },
    };
    const source = memoryByteSource("bytes", safetensors(header, new Uint8Array(5)));
    const checkpoint = await Checkpoint.fromSources("bytes", [source]);
    expect(await femoError("E_WEIGHT", () => valuesOf(merge({ checkpoint, weight: 1 })))).toContain("q.lora_");
  });
});

test("any names and shapes merge or are refused by a FemoError, and what merges has the base's shape", async () => {
  const words = ["q", "k", "qk", "swapped_k", "also_q", "gone", ".", "", "lora_A", "__proto__", "\n", "ü"];
  const endings = [".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_down.weight", ".lora_up.weight"];
  const others = [".alpha", ".down.weight", ".up.weight", ".lora.up.weight", ".lora_A.default.weight", ".weight", ""];
  const name = fc
    .tuple(fc.constantFrom(...words), fc.constantFrom(...endings, ...others))
    .map(([word, ending]) => word + ending);
  const shape = fc.oneof(
    fc.constantFrom([1, 3], [2, 3], [2, 1], [4, 1], [6, 1], [2, 2], [2], []),
    fc.array(fc.nat(6), { maxLength: 3 }),
  );
  const special = fc.constantFrom(0, -0, 1, -3, 1e38, Number.NaN, Number.POSITIVE_INFINITY);
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(name, fc.tuple(shape, special), { maxKeys: 8 }),
      fc.constantFrom(0, 1, -0.5, 1e38),
      async (tensors, weight) => {
        const filled = Object.entries(tensors).map(([key, [dims, value]]) => {
          return [key, entry(dims, new Array(dims.reduce((a, b) => a * b, 1)).fill(value))] as const;
        });
        try {
          for (const tensor of Object.values(await derivedOf(mergeFile(Object.fromEntries(filled), weight)))) {
            expect(tensor.shape).toEqual(net.get(tensor.name)?.shape);
            expect((await tensor.make()).length).toBe(4 * tensor.shape.reduce((a, b) => a * b, 1));
          }
        } catch (error) {
          expect(error).toBeInstanceOf(FemoError);
        }
      },
    ),
    { numRuns: 500 },
  );
});

test("a name of many parts takes no longer than its length", async () => {
  const long = `${".lora".repeat(50_000)}.lora_A.weights`;
  const { notes } = await mergeFile({ ...lora, [long]: down, [`${"a.".repeat(50_000)}alpha.`]: down });
  expect(notes[0]).toMatch(/2 of its entries have no place/);
  expect(notes.join().length).toBeLessThan(1000);
});
