import { describe, expect, test } from "vitest";
import { type FolderSource, memoryFolder, openModelFolder } from "../../src/weights/index.js";
import { nodeFolder } from "../../src/weights/node-folder.js";
import { femoError, golden, goldens } from "./helpers.js";
import { torchGolden } from "./torch-helpers.js";

describe("a folder written in the layout of diffusers", () => {
  const open = () => openModelFolder(nodeFolder(`${goldens}/pipeline`));

  test("its index", async () => {
    const model = await open();
    expect(model.className).toBe("DiTPipeline");
    expect(model.components).toEqual({
      scheduler: ["diffusers", "DDIMScheduler"],
      transformer: ["diffusers", "Transformer2DModel"],
      vae: ["diffusers", "AutoencoderKL"],
      feature_extractor: null,
    });
    expect(model.id2label?.[10]).toBe("brambling, Fringilla montifringilla");
    expect(model.options).toEqual({ requires_safety_checker: true });
  });

  test("its components", async () => {
    const model = await open();
    const transformer = await model.component("transformer");
    expect(transformer.config).toEqual({ _class_name: "Transformer2DModel", num_layers: 2 });
    expect(transformer.checkpoint.names()).toHaveLength(4);
    expect((await model.component("vae")).checkpoint.get("conv.weight")?.dtype).toBe("float32");
    const half = await model.component("vae", { variant: "fp16" });
    expect(half.checkpoint.get("conv.weight")).toMatchObject({ dtype: "float16", shape: [2, 1, 3, 3] });
    expect(half.checkpoint.name).toContain("vae/diffusion_pytorch_model.fp16.safetensors");
    expect(await model.config("scheduler")).toMatchObject({ num_train_timesteps: 1000 });
  });

  test("what it does not have", async () => {
    const model = await open();
    expect(await femoError("E_CONFIG", () => model.component("unet"))).toMatch(
      /"unet", found none.*scheduler, transformer, vae/,
    );
    expect(await femoError("E_CONFIG", () => model.config("feature_extractor"))).toContain("found null");
    expect(await femoError("E_CONFIG", () => model.config("toString"))).toContain("found none");
    const message = await femoError("E_FILE", () => model.component("scheduler"));
    expect(message).toMatch(
      /no weights of "scheduler"[\s\S]*scheduler\/diffusion_pytorch_model.safetensors[\s\S]*scheduler\/model.safetensors/,
    );
    expect(await femoError("E_FILE", () => model.component("transformer", { variant: "fp16" }))).toContain(
      "leave it out",
    );
    expect(await femoError("E_OPTION", () => model.component("vae", { variant: "../x" }))).toContain('"../x"');
  });
});

/** Files in memory: objects as JSON, texts and bytes as they are. */
function folderOf(files: Record<string, unknown>): FolderSource {
  const bytes = (value: unknown) => {
    if (value instanceof Uint8Array) return value;
    return new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
  };
  return memoryFolder("dir", new Map(Object.entries(files).map(([path, value]) => [path, bytes(value)])));
}

const weights = golden("odd.safetensors");
const torch = torchGolden("protocol-2.pt");
const pipeline = (files: Record<string, unknown>) =>
  openModelFolder(
    folderOf({ "model_index.json": { _class_name: "P", unet: ["diffusers", "U"] }, "unet/config.json": {}, ...files }),
  );

describe("where weights are looked for", () => {
  test.each([
    ["unet/diffusion_pytorch_model.safetensors", undefined],
    ["unet/model.safetensors", undefined],
    ["unet/diffusion_pytorch_model.fp16.safetensors", "fp16"],
    ["unet/model.fp16.safetensors", "fp16"],
    ["unet/diffusion_pytorch_model.bin", undefined],
    ["unet/pytorch_model.bin", undefined],
    ["unet/diffusion_pytorch_model.fp16.bin", "fp16"],
    ["unet/pytorch_model.fp16.bin", "fp16"],
  ])("%s, variant %s", async (path, variant) => {
    const model = await pipeline({ [path]: path.endsWith(".bin") ? torch : weights });
    expect((await model.component("unet", variant ? { variant } : {})).checkpoint.name).toBe(`dir/${path}`);
  });

  test.each([
    ["unet/diffusion_pytorch_model.safetensors.index.json", undefined],
    ["unet/model.safetensors.index.json", undefined],
    ["unet/diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"],
    ["unet/diffusion_pytorch_model.safetensors.fp16.index.json", "fp16"],
    ["unet/diffusion_pytorch_model.bin.index.json", undefined],
    ["unet/pytorch_model.bin.index.json", undefined],
    ["unet/diffusion_pytorch_model.bin.index.fp16.json", "fp16"],
    ["unet/pytorch_model.bin.fp16.index.json", "fp16"],
  ])("%s, variant %s", async (path, variant) => {
    const model = await pipeline({
      [path]: { weight_map: { f: "shard.safetensors" } },
      "unet/shard.safetensors": weights,
    });
    expect((await model.component("unet", variant ? { variant } : {})).checkpoint.get("f")?.file).toBe(
      "unet/shard.safetensors",
    );
  });

  test("an index wins over a single file, as in diffusers", async () => {
    const model = await pipeline({
      "unet/diffusion_pytorch_model.safetensors": weights,
      "unet/diffusion_pytorch_model.safetensors.index.json": { weight_map: { f: "shard.safetensors" } },
      "unet/shard.safetensors": weights,
    });
    expect((await model.component("unet")).checkpoint.name).toContain(".index.json");
  });

  test("safetensors win over what torch.save wrote, whatever their names", async () => {
    const model = await pipeline({
      "unet/diffusion_pytorch_model.bin": torch,
      "unet/diffusion_pytorch_model.bin.index.json": { weight_map: {} },
      "unet/model.safetensors": weights,
    });
    expect((await model.component("unet")).checkpoint.name).toBe("dir/unet/model.safetensors");
  });

  test("what is there instead is named", async () => {
    const fails = async (files: Record<string, unknown>) => {
      const model = await pipeline(files);
      return femoError("E_FILE", () => model.component("unet"));
    };
    expect(await fails({})).toMatch(/Check that the download is complete[\s\S]*unet\/pytorch_model.bin$/);
    expect(await fails({ "unet/diffusion_pytorch_model.fp16.bin": torch })).toContain('pass variant: "fp16"');
    expect(await fails({ "unet/diffusion_pytorch_model.fp16.safetensors": weights })).toContain('pass variant: "fp16"');
  });
});

describe("a folder that is not a pipeline", () => {
  const fails = (code: "E_FILE" | "E_CONFIG", files: Record<string, unknown>) =>
    femoError(code, () => openModelFolder(folderOf(files)));

  test("without an index", async () => {
    expect(await fails("E_FILE", {})).toContain(
      "dir: expected a folder in the layout of diffusers, found no model_index.json",
    );
    expect(await fails("E_FILE", { "config.json": {} })).toContain("Give the folder above it");
  });

  test.each<[string, unknown, string]>([
    ["no JSON", '{\n  "_class_name": "P",\n}', 'line 3, column 1: expected a string in quotes, found "}"'],
    ["a list", [], "model_index.json: malformed"],
    ["no class", { unet: ["diffusers", "U"] }, "_class_name"],
    ["a component of three", { _class_name: "P", unet: ["a", "b", "c"] }, '"unet": expected [library, class]'],
    ["half a component", { _class_name: "P", unet: ["a", null] }, 'found ["a", null]'],
    ["labels without numbers", { _class_name: "P", id2label: { cat: "cat" } }, "id2label.cat"],
    ["a label of a number", { _class_name: "P", id2label: { "0": 1 } }, "id2label.0"],
  ])("with %s", async (_, index, message) => {
    const text = await fails("E_CONFIG", { "model_index.json": index });
    expect(text).toContain("dir/model_index.json");
    expect(text).toContain(message);
  });

  test("a byte order mark is tolerated", async () => {
    const model = await openModelFolder(folderOf({ "model_index.json": `\ufeff{"_class_name": "P"}` }));
    expect(model.className).toBe("P");
  });

  test("a component's name cannot lead out of the folder", async () => {
    const model = await openModelFolder(
      folderOf({ "model_index.json": { _class_name: "P", "../x": ["diffusers", "U"] } }),
    );
    expect(await femoError("E_FILE", () => model.component("../x"))).toContain("leads out of the folder");
  });

  test("a config that is not JSON names file and place", async () => {
    const model = await openModelFolder(
      folderOf({ "model_index.json": { _class_name: "P", vae: ["d", "V"] }, "vae/config.json": "{\n 1}" }),
    );
    expect(await femoError("E_CONFIG", () => model.config("vae"))).toContain(
      "dir/vae/config.json: not valid JSON at line 2, column 2",
    );
  });
});
