import { describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import {
  Checkpoint,
  type FolderSource,
  memoryByteSource,
  memoryFolder,
  openCheckpoint,
  type TensorInfo,
} from "../../src/weights/index.js";
import { expectedOf, femoError, golden, goldens, hex, safetensors } from "./helpers.js";

const info = (name: string, shape: number[]): TensorInfo => ({
  name,
  shape,
  dtype: "float32",
  file: "model.safetensors",
  offset: 0,
  byteLength: 4 * shape.reduce((a, b) => a * b, 1),
});

/** blocks.0 ... blocks.(depth - 1) of a width. */
const blocks = (depth: number, width: number, prefix = ""): TensorInfo[] =>
  Array.from({ length: depth }, (_, i) => [
    info(`${prefix}blocks.${i}.attn.weight`, [3 * width, width]),
    info(`${prefix}blocks.${i}.attn.bias`, [3 * width]),
  ]).flat();

/** Three layers, each with a list of two that differ. */
const nested = [0, 1, 2].flatMap((i) => [info(`a.${i}.net.0.proj.weight`, [2]), info(`a.${i}.net.2.weight`, [2])]);
const without = (start: string): TensorInfo[] => nested.filter(({ name }) => !name.startsWith(start));

describe("verify", () => {
  const verify = (stored: TensorInfo[], expected: TensorInfo[], ignore?: (name: string) => boolean) =>
    Checkpoint.fromTensors("model.safetensors", stored).verify(expected, ignore && { ignore });

  test("accepts what is expected, and what is to be ignored", () => {
    verify(blocks(2, 8), blocks(2, 8).reverse());
    verify([...blocks(2, 8), info("pos_embed", [1, 4])], blocks(2, 8), (name) => name === "pos_embed");
  });

  test("one error names missing, misshapen and surplus tensors, with shapes", async () => {
    const stored = [info("a", [2, 3]), info("b", [4]), info("s", [5, 6])];
    const message = await femoError("E_WEIGHT", () =>
      verify(stored, [info("a", [3, 2]), info("b", [4]), info("m", [7])]),
    );
    expect(message).toMatch(/^model.safetensors: .*expected 3, found 3/);
    expect(message).toContain('1 tensor missing:\n    "m" [7]');
    expect(message).toContain('"a": expected [3, 2], found [2, 3]');
    expect(message).toContain('1 tensor that the model does not have:\n    "s" [5, 6]');
  });

  test("a rank that differs is a shape that differs", async () => {
    const message = await femoError("E_WEIGHT", () => verify([info("a", [4, 4, 1])], [info("a", [4, 4])]));
    expect(message).toContain('"a": expected [4, 4], found [4, 4, 1]');
  });

  test("long lists are cut", async () => {
    const message = await femoError("E_WEIGHT", () => verify([], blocks(500, 8)));
    expect(message).toContain("1000 tensors missing");
    expect(message).toContain("... and 990 more");
    expect(message.length).toBeLessThan(1000);
  });

  test.each<[string, TensorInfo[], TensorInfo[], string]>([
    ["another width", blocks(2, 1024), blocks(2, 1152), "1024 where the config says 1152"],
    ["fewer layers", blocks(2, 8), blocks(3, 8), "fewer layers"],
    ["more layers", blocks(3, 8), blocks(2, 8), "more layers"],
    ["a prefix", blocks(2, 8, "model.dit."), blocks(2, 8), '"model.dit."'],
    ["something else", [info("x", [1])], blocks(2, 8), "Are the weights those of this model"],
    ["a part of a layer that is there", blocks(3, 8).slice(0, -1), blocks(3, 8), "left out when the file was saved"],
    ["an inner layer", without("a.0.net.2."), nested, "left out when the file was saved"],
    ["a layer in the middle", without("a.1."), nested, "left out when the file was saved"],
    ["the last layer, of layers that have layers", without("a.2."), nested, "fewer layers"],
  ])("hint: %s", async (_, stored, expected, hint) => {
    expect(await femoError("E_WEIGHT", () => verify(stored, expected))).toContain(hint);
  });
});

test.each(["float8_e8m0", "q4_k", "int8"] as const)("weights in %s: file, tensor and type are named", async (dtype) => {
  const stored = [{ ...info("a", [2]), dtype }, info("b", [2])];
  const verify = () =>
    Checkpoint.fromTensors("dir/model.safetensors", stored).verify(
      [info("b", [2]), info("a", [2])].map(({ name, shape }) => ({ name, shape })),
    );
  const message = await femoError("E_WEIGHT", verify);
  expect(message).toMatch(/^dir\/model\.safetensors: .*\n {2}1 tensor of another type:\n/);
  expect(message).toContain(
    `"a": expected float32, float16, bfloat16, float64, float8_e4m3fn, float8_e5m2, found ${dtype}`,
  );
});

describe("names that wrappers of training have changed", () => {
  const namesOf = async (...names: string[]): Promise<string[]> => {
    const header = Object.fromEntries(
      names.map((name, i) => [name, { dtype: "U8", shape: [1], data_offsets: [i, i + 1] }]),
    );
    const file = safetensors(header, new Uint8Array(names.length));
    const inMemory = await Checkpoint.fromSources("c", [memoryByteSource("f", file)]);
    const inFolder = await openCheckpoint(memoryFolder("dir", new Map([["a.safetensors", file]])), "a.safetensors");
    expect(inMemory.names()).toEqual(inFolder.names());
    return inFolder.names();
  };

  test.each([
    "_orig_mod.",
    "module.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.module.",
    "_fsdp_wrapped_module._checkpoint_wrapped_module.",
  ])("%s is taken off", async (prefix) => {
    expect(await namesOf(`${prefix}blocks.0.w`, `${prefix}x.b`)).toEqual(["blocks.0.w", "x.b"]);
  });

  test("also inside, where single blocks were compiled", async () => {
    expect(await namesOf("blocks.0._orig_mod.attn.w", "norm.w")).toEqual(["blocks.0.attn.w", "norm.w"]);
  });

  test("but not what only looks like it", async () => {
    const names = ["module.w", "x.b"];
    expect(await namesOf(...names)).toEqual(names);
    const others = ["my_orig_mod.w", "a.module.w", "module", "_orig_mod"];
    expect(await namesOf(...others)).toEqual(others);
  });

  test("two names that become one are an error", async () => {
    expect(await femoError("E_WEIGHT", () => namesOf("a.w", "_orig_mod.a.w"))).toContain('"a.w"');
  });
});

test("a checkpoint made from shapes has no bytes, and says so", async () => {
  const checkpoint = Checkpoint.fromTensors("shapes", [info("a", [2])]);
  expect(checkpoint.get("a")?.shape).toEqual([2]);
  expect(checkpoint.get("toString")).toBeUndefined();
  expect(await femoError("E_FILE", () => checkpoint.readBytes("a"))).toContain('tensor "a" has no bytes');
  expect(await femoError("E_WEIGHT", () => checkpoint.readBytes("b"))).toMatch(/no tensor "b"[\s\S]*"a"/);
});

test("a name in two files is an error that names both", async () => {
  const bytes = golden("odd.safetensors");
  const message = await femoError("E_WEIGHT", () =>
    Checkpoint.fromSources("c", [memoryByteSource("one", bytes), memoryByteSource("two", bytes)]),
  );
  expect(message).toContain('tensor "b" is in one and again in two');
});

describe("a sharded checkpoint", () => {
  const path = "transformer/diffusion_pytorch_model.safetensors.index.json";
  const folder = nodeFolder(`${goldens}/pipeline`);

  test("is read as one", async () => {
    const checkpoint = await openCheckpoint(folder, path);
    const expected = expectedOf("transformer");
    checkpoint.verify(expected.map(([name, { shape }]) => ({ name, shape })));
    for (const [name, { bytes }] of expected) {
      expect(hex(await checkpoint.readBytes(name))).toBe(bytes);
      expect(checkpoint.get(name)).toMatchObject({
        file: expect.stringMatching(/transformer.diffusion_pytorch_model-0000[12]-of-00002.safetensors$/),
      });
    }
  });

  const shard = (name: string) =>
    safetensors({ [name]: { dtype: "U8", shape: [1], data_offsets: [0, 1] } }, new Uint8Array(1));
  const sharded = (index: unknown, files: Record<string, Uint8Array> = {}): FolderSource => {
    const text = typeof index === "string" ? index : JSON.stringify(index);
    return memoryFolder("dir", new Map([["m/x.index.json", new TextEncoder().encode(text)], ...Object.entries(files)]));
  };
  const fails = (code: "E_FILE" | "E_WEIGHT", folder: FolderSource) =>
    femoError(code, () => openCheckpoint(folder, "m/x.index.json"));

  test("reads tensors that the index does not list, as diffusers does", async () => {
    const files = { "m/a.safetensors": shard("a"), "m/b.safetensors": shard("b") };
    const checkpoint = await openCheckpoint(
      sharded({ weight_map: { a: "a.safetensors", b: "b.safetensors" } }, files),
      "m/x.index.json",
    );
    expect(checkpoint.names()).toEqual(["a", "b"]);
    expect(checkpoint.get("a")).toMatchObject({ file: "m/a.safetensors" });
  });

  test("has tensors that its index names as left out in favour of another", async () => {
    const index = {
      metadata: { total_size: 2, "c.w": "b", "d.w": "x" },
      weight_map: { a: "a.safetensors", b: "b.safetensors" },
    };
    const files = { "m/a.safetensors": shard("a"), "m/b.safetensors": shard("b") };
    const checkpoint = await openCheckpoint(sharded(index, files), "m/x.index.json");
    expect(checkpoint.names()).toEqual(["a", "b", "c.w"]);
    expect(checkpoint.get("c.w")).toEqual({ ...checkpoint.get("b"), name: "c.w" });
  });

  test("with missing files lists them all", async () => {
    const message = await fails("E_FILE", sharded({ weight_map: { a: "a.safetensors", b: "b.safetensors" } }));
    expect(message).toMatch(/2 of its 2 files[\s\S]*m\/a.safetensors[\s\S]*m\/b.safetensors/);
  });

  test("with a tensor that is not in its file names both", async () => {
    const files = { "m/a.safetensors": shard("other") };
    const message = await fails("E_WEIGHT", sharded({ weight_map: { "blocks.0.w": "a.safetensors" } }, files));
    expect(message).toMatch(/should be in a.safetensors[\s\S]*"blocks.0.w"/);
  });

  test.each<[string, unknown, string]>([
    ["no object", [], "weight_map"],
    ["no map", { metadata: {} }, "found nothing"],
    ["a number as file", { weight_map: { a: 3 } }, 'tensor "a"'],
    ["another kind of file", { weight_map: { a: "flax_model.msgpack" } }, "flax_model.msgpack"],
    ["no JSON", '{"weight_map": {\n"a": }}', "dir/m/x.index.json: not valid JSON at line 2, column 6"],
    ["a tensor twice", '{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', "a second time"],
  ])("with %s is refused", async (_, index, message) => {
    expect(await fails("E_FILE", sharded(index))).toContain(message);
  });

  test.each([
    "../a.safetensors",
    "/etc/a.safetensors",
    "x/../../a.safetensors",
    "..\\a.safetensors",
    "C:\\a.safetensors",
    "C:/a.safetensors",
    "a\0.safetensors",
  ])("may not lead out of its folder: %j", async (file) => {
    const folder = sharded({ weight_map: { a: file } }, { "a.safetensors": shard("a") });
    expect(await fails("E_FILE", folder)).toContain(JSON.stringify(file));
  });
});
