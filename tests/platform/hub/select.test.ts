import { expect, test } from "vitest";
import { componentFiles, type FolderSource, memoryFolder, pipelineFiles } from "../../../src/weights/index.js";
import { femoError } from "../../weights/helpers.js";
import { filesOf } from "./server.js";

const CLASSES = { unet: ["diffusers", "U"], scheduler: ["diffusers", "S"], tokenizer: ["transformers", "T"] };
const OTHERS = { "scheduler/scheduler_config.json": {}, "tokenizer/tokenizer_config.json": {}, "unet/config.json": {} };

function folderOf(contents: Record<string, unknown>, index: Record<string, unknown> = CLASSES): FolderSource {
  const files = filesOf({ "model_index.json": { _class_name: "P", ...index }, ...OTHERS, ...contents });
  return memoryFolder("owner/tiny", new Map([...files].map(([path, { bytes }]) => [path, bytes])));
}

const SINGLE = "unet/diffusion_pytorch_model.safetensors";
const weightsOf = async (folder: FolderSource): Promise<string[]> =>
  (await pipelineFiles(folder)).filter((path) => path !== "model_index.json" && !(path in OTHERS));

test("index, configs and weights; neither what belongs to no component nor a null component", async () => {
  const folder = folderOf(
    {
      [SINGLE]: "",
      "README.md": "",
      "model.ckpt": "",
      "unet/model.onnx": "",
      "unet/flax_model.msgpack": "",
      "unet/diffusion_pytorch_model.fp16.safetensors": "",
      "safety_checker/config.json": {},
      "safety_checker/model.safetensors": "",
    },
    { ...CLASSES, safety_checker: [null, null] },
  );
  expect((await pipelineFiles(folder)).sort()).toEqual(["model_index.json", ...Object.keys(OTHERS), SINGLE].sort());
});

test("of a tokenizer all that there is of its vocabulary, and nothing else", async () => {
  const vocabulary = [
    "tokenizer/merges.txt",
    "tokenizer/spiece.model",
    "tokenizer/tokenizer.json",
    "tokenizer/vocab.json",
  ];
  const there = [
    ...vocabulary,
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.py",
    "tokenizer/flax.msgpack",
  ];
  const folder = folderOf({ [SINGLE]: "", ...Object.fromEntries(there.map((path) => [path, ""])) });
  const chosen = (await pipelineFiles(folder)).filter((path) => path.startsWith("tokenizer/"));
  expect(chosen.sort()).toEqual(
    [...vocabulary, "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json"].sort(),
  );
});

test.each([
  ["safetensors before PyTorch's format", [SINGLE, "unet/diffusion_pytorch_model.bin"], [SINGLE]],
  ["transformers' names", ["unet/model.safetensors", "unet/pytorch_model.bin"], ["unet/model.safetensors"]],
  ["diffusers' .bin", ["unet/diffusion_pytorch_model.bin"], ["unet/diffusion_pytorch_model.bin"]],
  ["transformers' .bin", ["unet/pytorch_model.bin"], ["unet/pytorch_model.bin"]],
])("%s", async (_, there, chosen) => {
  expect(await weightsOf(folderOf(Object.fromEntries(there.map((path) => [path, ""]))))).toEqual(chosen);
});

test.each(["safetensors", "bin"])("the shards that an index of %s files names, each once", async (type) => {
  const [index, a, b] = [`unet/diffusion_pytorch_model.${type}.index.json`, `unet/a.${type}`, `unet/b.${type}`];
  const weight_map = { x: `a.${type}`, y: `b.${type}`, z: `a.${type}` };
  const folder = folderOf({ [index]: { weight_map }, [a]: "", [b]: "", [`unet/c.${type}`]: "" });
  expect(await weightsOf(folder)).toEqual([index, a, b]);
});

test("a variant, if asked for", async () => {
  const half = "unet/diffusion_pytorch_model.fp16.safetensors";
  const folder = folderOf({ [SINGLE]: "", [half]: "" });
  expect(await pipelineFiles(folder, { variant: "fp16" })).toEqual(
    [...(await pipelineFiles(folder))].map((path) => (path === SINGLE ? half : path)),
  );
  expect(await femoError("E_FILE", () => pipelineFiles(folderOf({ [SINGLE]: "" }), { variant: "fp16" }))).toContain(
    'no component has weights of the variant "fp16". There are no variants: leave it out',
  );
});

test("the only variant there is, without being asked for; but not where more may be than is there", async () => {
  const half = "unet/diffusion_pytorch_model.fp16.safetensors";
  const folder = folderOf({ [half]: "" });
  expect(await weightsOf(folder)).toEqual([half]);
  const { list: _, ...part } = folder;
  expect(await femoError("E_FILE", () => pipelineFiles(part))).toContain('found no weights of "unet"');
  expect(await pipelineFiles(part, { variant: "fp16" })).toContain(half);
});

test("a shard that is not there is named", async () => {
  const folder = folderOf({ [`${SINGLE}.index.json`]: { weight_map: { x: "gone.safetensors" } } });
  expect(await femoError("E_FILE", () => pipelineFiles(folder))).toContain('"unet/gone.safetensors"');
});

test.each(["../../../etc/passwd", "/etc/passwd", "C:\\x"])("a shard cannot be %s", async (shard) => {
  const folder = folderOf({ [`${SINGLE}.index.json`]: { weight_map: { x: shard } } });
  await femoError("E_FILE", () => pipelineFiles(folder));
});

test("a model without weights, or without its config", async () => {
  const message = await femoError("E_FILE", () => pipelineFiles(folderOf({ "unet/flax_model.msgpack": "" })));
  expect(message).toMatch(/found no weights of "unet"[\s\S]*unet\/diffusion_pytorch_model\.safetensors/);
  const folder = folderOf({ [SINGLE]: "" }, { ...CLASSES, vae: ["diffusers", "V"] });
  expect(await femoError("E_FILE", () => pipelineFiles(folder))).toContain('found no config of "vae"');
});

test("a repository that is no pipeline", async () => {
  const folder = memoryFolder("owner/tiny", new Map([["config.json", new Uint8Array(0)]]));
  expect(await femoError("E_FILE", () => pipelineFiles(folder))).toContain("found no model_index.json");
});

test("one component, of a pipeline or published alone", async () => {
  const config = { "config.json": {} };
  const weights = { "diffusion_pytorch_model.safetensors": "", "diffusion_pytorch_model.bin": "", "README.md": "" };
  const alone = folderOf({ ...config, ...weights });
  expect(await componentFiles(alone, ".")).toEqual(["config.json", "diffusion_pytorch_model.safetensors"]);
  expect(await componentFiles(folderOf({ [SINGLE]: "" }), "unet")).toEqual(["unet/config.json", SINGLE]);
  expect(await femoError("E_FILE", () => componentFiles(folderOf(config), "."))).toContain("no weights");
});
