import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { flux } from "../../src/models/flux.js";
import { fluxDev } from "../../src/models/flux-config.js";
import { type FluxLora, fluxLora, fluxLoraTarget } from "../../src/models/flux-lora.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";
import { entry, floatFile, floatsOf, renamed } from "../weights/lora-helpers.js";
import { tensorsOf } from "./tiny.js";

const folder = fileURLToPath(new URL("../goldens/flux-lora", import.meta.url));
const open = (file: string): Promise<Checkpoint> => openCheckpoint(nodeFolder(folder), file);
const files = readdirSync(folder);
/** The forms, with the weights of adapters that the script merged. */
const FORMS: Readonly<Record<string, number>> = {
  peft: 0.8,
  "peft-bias": -0.5,
  "ai-toolkit": 1,
  unprefixed: 0.7,
  kohya: 0.9,
  "kohya-rest": 1.3,
  dotted: 1,
  "dotted-ab": 1,
  mixed: 0.6,
  xlabs: 1,
};

let bases: { transformer: Checkpoint; textEncoder: Checkpoint };
beforeAll(async () => {
  const dev = fileURLToPath(new URL("../goldens/flux/tiny-dev", import.meta.url));
  bases = {
    transformer: await openCheckpoint(nodeFolder(dev), "transformer/diffusion_pytorch_model.safetensors"),
    textEncoder: await open("text_encoder.safetensors"),
  };
});

/** What is derived, by name with its component. */
const byName = ({ transformer, textEncoder }: FluxLora) =>
  new Map([
    ...transformer.map((tensor) => [`transformer.${tensor.name}`, tensor] as const),
    ...textEncoder.map((tensor) => [`text_encoder.${tensor.name}`, tensor] as const),
  ]);

test("every form of the goldens is tested", () => {
  const forms = files.filter((file) => file.endsWith(".merged.safetensors"));
  expect(forms.map((file) => file.replace(".merged.safetensors", "")).sort()).toEqual(Object.keys(FORMS).sort());
});

describe.each(Object.entries(FORMS))("LoRA as %s has it", (form, weight) => {
  test("merges into the weights that diffusers, or the formula by hand, gives", async () => {
    const merged = await open(`${form}.merged.safetensors`);
    const lora = await fluxLora(bases, [{ checkpoint: await open(`${form}.safetensors`), weight }]);
    const derived = byName(lora);
    expect([...derived.keys()].sort()).toEqual(merged.names().sort());
    for (const [name, tensor] of derived) {
      const expected = await merged.readTensor(name);
      expect(tensor.shape, name).toEqual(merged.get(name)?.shape);
      const found = floatsOf(await tensor.make());
      let worst = 0;
      for (const [i, value] of expected.entries()) worst = Math.max(worst, Math.abs(value - (found[i] as number)));
      expect(worst, name).toBeLessThan(4e-6);
    }
  });

  test("leaves nothing out", async () => {
    const { notes } = await fluxLora(bases, [{ checkpoint: await open(`${form}.safetensors`), weight }]);
    expect(notes.filter((note) => /not merged/.test(note))).toEqual([]);
    const isKohya = form === "kohya-rest" || form === "dotted-ab";
    expect(notes.filter((note) => /diffusers 0\.42 leaves them out/.test(note))).toHaveLength(isKohya ? 1 : 0);
  });
});

test("the text encoder may be named without text_model.", async () => {
  const names = bases.textEncoder.tensors().map(({ name }) => [name, name.replace("text_model.", "")] as const);
  const textEncoder = renamed(bases.textEncoder, new Map(names));
  const adapter = { checkpoint: await open("peft.safetensors"), weight: 1 };
  const [short, long] = [await fluxLora({ ...bases, textEncoder }, [adapter]), await fluxLora(bases, [adapter])];
  expect(short.textEncoder.map(({ name }) => `text_model.${name}`)).toEqual(long.textEncoder.map(({ name }) => name));
  expect(await short.textEncoder[0]?.make()).toEqual(await long.textEncoder[0]?.make());
  expect(short.notes).toEqual([]);
});

test("what is for a text encoder that is not given is noted, and so is what is for T5", async () => {
  const { transformer } = bases;
  const lora = await fluxLora({ transformer }, [{ checkpoint: await open("peft.safetensors"), weight: 1 }]);
  expect(lora.textEncoder).toEqual([]);
  expect(lora.notes.join()).toMatch(/12 of its entries are for "text_encoder" and were not merged/);
  for (const path of ["lora_te3_encoder_block_0_layer_0_SelfAttention_q", "text_encoders.t5xxl.transformer.q"]) {
    const t5 = await floatFile({
      [`${path}.lora_down.weight`]: entry([1, 2]),
      [`${path}.lora_up.weight`]: entry([2, 1]),
    });
    const { notes } = await fluxLora(bases, [{ checkpoint: t5, weight: 1 }]);
    expect(notes.join()).toContain(`are for "text_encoder_2" and were not merged`);
    expect(notes.join()).toContain(path);
  }
});

test("modules that this model does not have are noted by their names in the file", async () => {
  const schnell = bases.transformer.tensors().filter(({ name }) => !name.includes("guidance"));
  const transformer = bases.transformer.withTensors(schnell);
  const lora = await fluxLora({ transformer }, [{ checkpoint: await open("kohya-rest.safetensors"), weight: 1 }]);
  expect(lora.notes.join()).toMatch(/2 of its entries have no place in the model and were not merged/);
  expect(lora.notes.join()).toContain("lora_unet_guidance_in_in_layer");
  expect(lora.transformer.some(({ name }) => name.includes("guidance"))).toBe(false);
});

test("a control LoRA is refused as one", async () => {
  const wide = await floatFile({
    "transformer.x_embedder.lora_A.weight": entry([2, 8]),
    "transformer.x_embedder.lora_B.weight": entry([12, 2]),
  });
  expect(await femoError("E_WEIGHT", () => fluxLora(bases, [{ checkpoint: wide, weight: 1 }]))).toMatch(
    /x_embedder\.lora_A\.weight": expected \[r, 4\] .* found \[2, 8\].* control LoRA/,
  );
});

test("every linear layer of FLUX.1-dev has its module, by diffusers' name with and without prefix and by kohya's", () => {
  const linears = tensorsOf(flux(fluxDev)).filter(({ name, shape }) => name.endsWith(".weight") && shape.length === 2);
  const base = Checkpoint.fromTensors("base", tensorsOf(flux(fluxDev)));
  expect(linears.length).toBeGreaterThan(400);
  for (const { name } of linears) {
    const module = name.slice(0, -".weight".length);
    const flat = module.replaceAll(".", "_");
    for (const path of [module, `transformer.${module}`, `base_model.model.${module}`, `lora_transformer_${flat}`]) {
      expect(fluxLoraTarget(path), path).toEqual(
        expect.objectContaining({ component: "transformer", modules: [module] }),
      );
    }
  }
  const fused = [
    "lora_unet_double_blocks_18_img_attn_qkv",
    "lora_unet_double_blocks_18_txt_attn_qkv",
    "diffusion_model.single_blocks.37.linear1",
    "model.diffusion_model.single_blocks.37.linear2",
  ];
  for (const path of fused) {
    for (const module of fluxLoraTarget(path)?.modules ?? [""])
      expect(base.get(`${module}.weight`), path).toBeDefined();
  }
});

test("names that mean nothing in FLUX have no module", () => {
  const names = [
    "",
    ".",
    "lora_unet_",
    "lora_unet_down_blocks_0_attentions_0_proj_in",
    "lora_unet_double_blocks__img_attn_qkv",
    "lora_unet_double_blocks_99999_img_attn_qkv",
    "double_blocks.0.processor.qkv_lora3",
    "single_blocks.0.img_attn.qkv",
    "transformer_blocks.0.__proto__",
    "constructor",
    "lora_te1_text_model_embeddings_token_embedding",
    "lora_te1_text_model_encoder_layers_0_mlp_fc3",
  ];
  for (const name of names) expect(fluxLoraTarget(name), name).toBeUndefined();
});
