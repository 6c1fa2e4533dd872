import { describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type FolderSource, memoryFolder, openComponent, openModelFolder } from "../../src/weights/index.js";
import { femoError, golden, goldens } from "./helpers.js";
import { torchGolden } from "./torch-helpers.js";

describe("a folder written in the layout of diffusers", () => {
  const open = (variant?: string) => openModelFolder(nodeFolder(`${goldens}/pipeline`), { variant });

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
    expect(model.model).toBe("pipeline");
  });

  test("its components", async () => {
    const model = await open();
    const transformer = await model.component("transformer");
    expect(transformer.config).toEqual({ _class_name: "Transformer2DModel", num_layers: 2 });
    expect(transformer.checkpoint.names()).toHaveLength(4);
    expect((await model.component("vae")).checkpoint.get("conv.weight")?.dtype).toBe("float32");
    const half = await (await open("fp16")).component("vae");
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
    expect(await femoError("E_FILE", () => open("bf16"))).toMatch(/of the variant "bf16"\. There are "fp16"/);
    expect(await femoError("E_OPTION", () => open("../x"))).toContain('"../x"');
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
const pipeline = (files: Record<string, unknown>, variant?: string) =>
  openModelFolder(
    folderOf({ "model_index.json": { _class_name: "P", unet: ["diffusers", "U"] }, "unet/config.json": {}, ...files }),
    { variant },
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
    const model = await pipeline({ [path]: path.endsWith(".bin") ? torch : weights }, variant);
    expect((await model.component("unet")).checkpoint.name).toBe(`dir/${path}`);
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
    const files = { [path]: { weight_map: { f: "shard.safetensors" } }, "unet/shard.safetensors": weights };
    const model = await pipeline(files, variant);
    expect((await model.component("unet")).checkpoint.get("f")).toMatchObject({ file: "unet/shard.safetensors" });
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

  const SHARDED = {
    "unet/model.safetensors.index.fp16.json": { weight_map: { f: "model.fp16-00001-of-00001.safetensors" } },
    "unet/model.fp16-00001-of-00001.safetensors": weights,
  };
  test.each<[string, Record<string, unknown>]>([
    ["unet/diffusion_pytorch_model.fp16.safetensors", {}],
    ["unet/pytorch_model.non_ema.bin", {}],
    ["unet/model.safetensors.index.fp16.json", SHARDED],
    [
      "unet/diffusion_pytorch_model.safetensors.bf16.index.json",
      {
        "unet/diffusion_pytorch_model.safetensors.bf16.index.json": { weight_map: { f: "a.safetensors" } },
        "unet/a.safetensors": weights,
      },
    ],
  ])("%s, the only weights there are, without being asked for", async (path, others) => {
    const model = await pipeline({ [path]: path.endsWith(".bin") ? torch : weights, ...others });
    expect((await model.component("unet")).checkpoint.name).toBe(`dir/${path}`);
  });

  test("without a variant, weights without one come before the only variant", async () => {
    const files = { "unet/model.fp16.safetensors": weights, "unet/pytorch_model.bin": torch };
    expect((await (await pipeline(files)).component("unet")).checkpoint.name).toBe("dir/unet/pytorch_model.bin");
  });

  test("of a pipeline, the variant where there is one and what there is elsewhere", async () => {
    const index = { _class_name: "P", unet: ["diffusers", "U"], vae: ["diffusers", "V"] };
    const model = await pipeline(
      {
        "model_index.json": index,
        "unet/diffusion_pytorch_model.safetensors": weights,
        "unet/diffusion_pytorch_model.fp16.safetensors": weights,
        "vae/config.json": {},
        "vae/diffusion_pytorch_model.safetensors": weights,
      },
      "fp16",
    );
    const nameOf = async (component: string) => (await model.component(component)).checkpoint.name;
    expect(await nameOf("unet")).toBe("dir/unet/diffusion_pytorch_model.fp16.safetensors");
    expect(await nameOf("vae")).toBe("dir/vae/diffusion_pytorch_model.safetensors");
  });

  test("what is there instead is named", async () => {
    const fails = async (files: Record<string, unknown>, variant?: string) =>
      femoError("E_FILE", async () => (await pipeline(files, variant)).component("unet"));
    expect(await fails({})).toMatch(/Check that the download is complete[\s\S]*unet\/pytorch_model.bin$/);
    const two = { "unet/model.fp16.safetensors": weights, "unet/diffusion_pytorch_model.bf16.bin": torch };
    expect(await fails(two)).toContain('There are variants: pass variant, one of "bf16", "fp16"');
    expect(await fails(two, "fp8")).toContain(
      'no component has weights of the variant "fp8". There are "bf16", "fp16"',
    );
    expect(await fails({ "unet/model.safetensors": weights }, "fp16")).toContain("leave it out");
    const alone = folderOf({ "config.json": {}, "model.safetensors": weights, "model.bf16.safetensors": weights });
    expect(await femoError("E_FILE", () => openComponent(alone, ".", { variant: "fp16" }))).toContain(
      'exist without the variant: leave it out, or pass one that is there: "bf16"',
    );
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
