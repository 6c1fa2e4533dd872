import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { DTYPE_BITS } from "../../src/weights/dtypes.js";
import {
  Checkpoint,
  filesOf,
  memoryByteSource,
  openCheckpoint,
  openModelFolder,
  type TorchFile,
} from "../../src/weights/index.js";
import { readTorchFile } from "../../src/weights/torch.js";
import { femoError, guardedSource, hex } from "./helpers.js";
import {
  instructions,
  type Py,
  tensor,
  torchEntries,
  torchFile,
  torchGolden,
  torchGoldens,
  zip,
} from "./torch-helpers.js";

const read = (bytes: Uint8Array): Promise<TorchFile> => readTorchFile({ ...guardedSource(bytes), name: "file.pt" });

interface Expected {
  dtype: keyof typeof DTYPE_BITS;
  shape: number[];
  bytes: string;
  float32?: string;
}
const expectedOf = (name: string): [string, Expected][] =>
  Object.entries(JSON.parse(readFileSync(`${torchGoldens}/${name}.expected.json`, "utf8")) as Record<string, Expected>);

describe.each([
  ["kinds", "kinds", undefined],
  ["protocol-2", "small", undefined],
  ["protocol-3", "small", undefined],
  ["protocol-4", "small", undefined],
  ["protocol-5", "small", undefined],
  ["aligned", "small", undefined],
  ["legacy", "small", undefined],
  ["training", "training", "ema"],
])("%s.pt, written by PyTorch", (file, name, key) => {
  const bytes = torchGolden(`${file}.pt`);
  const expected = expectedOf(name);

  test("names, types and shapes", async () => {
    const found = await read(bytes);
    expect(found.key).toBe(key);
    expect([...found.tensors.keys()].sort()).toEqual(expected.map(([tensor]) => tensor).sort());
    for (const [tensor, { dtype, shape }] of expected) {
      const elements = shape.reduce((a, b) => a * b, 1);
      const byteLength = (elements * DTYPE_BITS[dtype]) / 8;
      expect(found.tensors.get(tensor)).toMatchObject({ dtype, shape, byteLength, name: tensor, file: "file.pt" });
    }
  });

  test("stored bytes and values", async () => {
    const checkpoint = await Checkpoint.fromSources(file, [memoryByteSource("file.pt", bytes)]);
    for (const [tensor, { bytes, float32 }] of expected) {
      expect(hex(await checkpoint.readBytes(tensor)), tensor).toBe(bytes);
      if (float32 === undefined) continue;
      const wanted = new Float32Array(Uint8Array.from(Buffer.from(float32, "hex")).buffer);
      expect([...(await checkpoint.readTensor(tensor))], tensor).toEqual([...wanted]);
    }
  });
});

test("tensors that share their elements share their bytes", async () => {
  const { tensors } = await read(torchGolden("kinds.pt"));
  const at = (name: string): number => tensors.get(name)?.offset ?? Number.NaN;
  expect(at("the same")).toBe(at("base"));
  expect(at("rows 1 and 2")).toBe(at("base") + 4 * 4);
  expect(at("one of a column")).toBe(at("base") + 4 * 14);
});

test("alignment as PyTorch chose it", async () => {
  const { tensors } = await read(torchGolden("aligned.pt"));
  for (const { offset } of tensors.values()) expect(offset % 1024).toBe(0);
});

test("only what describes the tensors is read", async () => {
  const storage = new Uint8Array(2 ** 20);
  const file = torchFile(new Map([["w", tensor({ size: 2 ** 18, shape: [2 ** 18] })]]), { 0: storage });
  const source = guardedSource(file);
  expect((await readTorchFile(source)).tensors.get("w")?.byteLength).toBe(2 ** 20);
  expect(source.bytesRead()).toBeLessThan(file.length - storage.length + 600);
});

describe("where the state dict is", () => {
  const weights = (name: string): Py => new Map([[name, tensor()]]);
  const contents = (keys: string[]): Py =>
    new Map<Py, Py>([["epoch", 3], ...keys.map((key): [Py, Py] => [key, weights(`in ${key}`)])]);

  test.each([
    [["model", "ema"], "ema"],
    [["model", "state_dict"], "state_dict"],
    [["other", "model"], "model"],
  ])("of %j, %s", async (keys, key) => {
    const found = await read(torchFile(contents(keys)));
    expect([found.key, [...found.tensors.keys()]]).toEqual([key, [`in ${key}`]]);
  });

  test("tensors alone are the state dict, whatever their names", async () => {
    const found = await read(torchFile(new Map([["ema", tensor()]])));
    expect([found.key, [...found.tensors.keys()]]).toEqual([undefined, ["ema"]]);
    expect((await read(torchFile(new Map()))).tensors.size).toBe(0);
  });

  test("a module's copy of its versions is ignored, as PyTorch does", async () => {
    const versions = new Map([["_metadata", 1]]);
    const build = { bytes: [...instructions(weights("a")), ...instructions(versions), 0x62] };
    expect([...(await read(torchFile(build))).tensors.keys()]).toEqual(["a"]);
  });

  test("elsewhere: the keys are listed with what is there", async () => {
    const other = new Map<Py, Py>([...(contents(["net"]) as Map<Py, Py>), ["ema", 2], [7, [1]]]);
    const message = await femoError("E_FILE", () => read(torchFile(other)));
    expect(message).toContain('expected tensors by name, alone or under "ema", "state_dict", "model"');
    expect(message).toMatch(/"epoch": 3\n {4}"net": a dictionary of 1\n {4}"ema": 2\n {4}7: a tuple of 1$/);
    const many = new Map<Py, Py>(Array.from({ length: 500 }, (_, i) => [`key ${i}`, i]));
    expect((await femoError("E_FILE", () => read(torchFile(many)))).length).toBeLessThan(1000);
  });

  test("nowhere", async () => {
    expect(await femoError("E_FILE", () => read(torchFile([1, 2])))).toContain("found a tuple of 2");
    expect(await femoError("E_FILE", () => read(torchFile(tensor())))).toContain("found a tensor");
    const mixed = new Map<Py, Py>([
      ["w", tensor()],
      ["step", 5],
    ]);
    expect(await femoError("E_FILE", () => read(torchFile(mixed)))).toMatch(/Found also:\n {4}"step": 5$/);
  });
});

describe("a tensor that cannot be used in place", () => {
  const fails = (fields: Parameters<typeof tensor>[0]) =>
    femoError("E_WEIGHT", () => read(torchFile(new Map([["blocks.0.w", tensor(fields)]]), { 0: new Uint8Array(48) })));

  test("transposed, by PyTorch", async () => {
    const message = await femoError("E_WEIGHT", () => read(torchGolden("transposed.pt")));
    expect(message).toContain('file.pt: tensor "blocks.0.weight": expected elements in row-major order');
    expect(message).toContain("found [2, 3] with strides [1, 4]");
    expect(message).toContain(".contiguous()");
  });

  test.each<[string, Parameters<typeof tensor>[0], string]>([
    ["repeated", { size: 12, shape: [2, 3], strides: [0, 1] }, "strides [0, 1]"],
    ["with gaps", { size: 12, shape: [2, 3], strides: [6, 2] }, "strides [6, 2]"],
    ["longer than its storage", { size: 12, shape: [13] }, "found 48 bytes there"],
    ["behind its storage", { size: 12, offset: 12, shape: [1] }, "from element 12"],
    ["longer than the storage says", { size: 3, shape: [4] }, "found 12 bytes there"],
    ["of a storage longer than its file", { size: 2 ** 50, shape: [13] }, "found 48 bytes there"],
    ["above 2^53 elements", { size: 12, shape: [2 ** 30, 2 ** 30], strides: [2 ** 30, 1] }, "[1073741824, 1073741824]"],
    ["of a file that is not there", { key: "7" }, "the storage 7, which is not there"],
    ["of a file outside", { key: "../../version" }, "which is not there"],
  ])("%s", async (_, fields, message) => {
    const text = await fails(fields);
    expect(text).toContain('file.pt: tensor "blocks.0.w"');
    expect(text).toContain(message);
  });

  test("others of the file do not matter: those of the optimiser are not looked at", async () => {
    const contents = new Map<Py, Py>([
      ["opt", new Map([["moment", tensor({ key: "9" })]])],
      ["model", new Map([["w", tensor()]])],
    ]);
    expect((await read(torchFile(contents))).tensors.size).toBe(1);
  });
});

describe("another kind of file", () => {
  const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
  const tar = Uint8Array.from({ length: 600 }, (_, i) => "ustar".charCodeAt(i - 257) || 0);
  test.each<[string, Uint8Array, string]>([
    ["a pickle of something else", Uint8Array.of(0x80, 2, 0x4e, 0x2e), "found a plain pickle, not one of tensors"],
    ["a tar", tar, "found a tar, the format of early PyTorch"],
    ["safetensors", utf8(`\x10\0\0\0\0\0\0\0{}${" ".repeat(14)}`), "Let its name end with .safetensors"],
    ["a Git LFS pointer", utf8("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"],
    ["a web page", utf8("<!doctype html><html>"), "a web page"],
    ["empty", new Uint8Array(0), "an empty file"],
    ["something else", utf8("hello"), "something else"],
    ["compressed", torchGolden("compressed.pt"), "is compressed, but tensors are used where they lie"],
    ["a zip of other things", zip([{ name: "a/b.txt", data: utf8("x") }]), "with one data.pkl"],
    ["a whole module", torchGolden("module.pt"), 'the Python object "torch.nn.modules.container.Sequential"'],
  ])("%s", async (_, bytes, message) => {
    const text = await femoError("E_FILE", () => read(bytes));
    expect(text).toContain(message);
    expect(text).toMatch(/^file\.pt: /);
  });

  test("that asks for code to be run: named, and not run", async () => {
    const message = await femoError("E_FILE", () => read(torchFile({ call: "posix.system", args: ["touch /tmp/x"] })));
    expect(message).toContain('asks for the Python object "posix.system"');
    expect(message).toContain("nothing was executed");
  });

  test("TorchScript, big-endian numbers, a later format", async () => {
    const entries = torchEntries(new Map());
    const set = (name: string, text: string) =>
      zip(entries.map((entry) => (entry.name === `archive/${name}` ? { ...entry, data: utf8(text) } : entry)));
    const script = zip([...entries, { name: "archive/constants.pkl", data: utf8("x") }]);
    expect(await femoError("E_FILE", () => read(script))).toContain("TorchScript");
    expect(await femoError("E_FILE", () => read(set("byteorder", "big")))).toContain('byte order "big"');
    expect(await femoError("E_FILE", () => read(set("version", "11\n")))).toContain('at most 10, found "11"');
    expect(await femoError("E_FILE", () => read(set("version", "x".repeat(9999))))).toContain('found "xxxx');
    const old = zip(entries.filter(({ name }) => !name.endsWith("byteorder") && !name.endsWith("version")));
    expect((await read(old)).tensors.size).toBe(0);
  });
});

describe("as a part of a pipeline's folder", () => {
  const open = (variant?: string) => openModelFolder(nodeFolder(`${torchGoldens}/pipeline`), { variant });

  test("one .bin, and a variant in several, as diffusers names them", async () => {
    const model = await open();
    const { checkpoint } = await model.component("transformer");
    expect(checkpoint.name).toMatch(/transformer\/diffusion_pytorch_model\.bin$/);
    const half = (await (await open("fp16")).component("transformer")).checkpoint;
    expect(half.name).toMatch(/diffusion_pytorch_model\.bin\.index\.fp16\.json$/);
    expect(half.names().sort()).toEqual(checkpoint.names().sort());
    expect(new Set(half.tensors().flatMap(filesOf)).size).toBe(3);
    for (const { name, shape, dtype } of checkpoint.tensors()) {
      expect(dtype).toBe("float32");
      expect(half.get(name)).toMatchObject({ shape, dtype: "float16" });
      const [wide, narrow] = [await checkpoint.readTensor(name), await half.readTensor(name)];
      const error = narrow.map((x, i) => Math.abs(x - (wide[i] as number)));
      expect(Math.max(...error)).toBeLessThan(2 ** -11 * Math.max(1, ...wide.map(Math.abs)));
    }
  });

  test("a training run with numbers of any size beside its tensors", async () => {
    for (const length of [9, 255]) {
      const seed: Py = { bytes: [0x8a, length, ...new Array<number>(length - 1).fill(255), 0x7f] };
      const file = torchFile(
        new Map<Py, Py>([
          ["ema", new Map([["w", tensor()]])],
          ["seed", seed],
        ]),
        { 0: new Uint8Array(4) },
      );
      expect([...(await read(file)).tensors.keys()]).toEqual(["w"]);
    }
  });

  test("a file of its own", async () => {
    const checkpoint = await openCheckpoint(nodeFolder(torchGoldens), "training.pt");
    expect(checkpoint.names()).toContain("embed.weight");
  });
});
