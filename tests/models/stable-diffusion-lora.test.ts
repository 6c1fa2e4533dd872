import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import {
  type StableDiffusionLora,
  type StableDiffusionLoraBases,
  stableDiffusionLora,
} from "../../src/models/stable-diffusion-lora.js";
import { originalStableDiffusion, stableDiffusionParts } from "../../src/models/stable-diffusion-original.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";
import { type Entry, entry, floatFile, floatsOf, renamed } from "../weights/lora-helpers.js";

const folder = fileURLToPath(new URL("../goldens/sd-lora", import.meta.url));
const open = (file: string): Promise<Checkpoint> => openCheckpoint(nodeFolder(folder), file);
/** The forms: which model they are for, and the weights with which the script merged them. */
const FORMS = {
  "kohya-sdxl": ["sdxl", 0.8],
  "kohya-sd1": ["sd1", -0.6],
  peft: ["sdxl", 1.2],
  processors: ["sd1", 1],
  "locon-sdxl": ["sdxl", 0.5],
  "dotted-sd1": ["sd1", 1],
} as const;

let bases: Readonly<Record<"sd1" | "sdxl", StableDiffusionLoraBases>>;
beforeAll(async () => {
  bases = {
    sd1: await basesOf("sd1", "sd1-tiny.ckpt", 2),
    sdxl: await basesOf("sdxl", "sdxl-tiny.safetensors", [1, 2, 4]),
  };
});

/** The parts of a single file, as LoRA is merged into them. */
async function basesOf(family: "sd1" | "sdxl", name: string, attentionHeadDim: number | readonly number[]) {
  const file = await openCheckpoint(nodeFolder(`${folder}/../sd-original`), name);
  const { unet } = await originalStableDiffusion(file, { family, normNumGroups: 2, attentionHeadDim });
  const options = { textEncoder: { numAttentionHeads: 2 }, textEncoder2: { numAttentionHeads: 4 } };
  const { textEncoder, textEncoder2 } = stableDiffusionParts(family, options);
  return {
    unet: unet.checkpoint,
    textEncoder: (await textEncoder?.open(file))?.checkpoint,
    textEncoder2: (await textEncoder2?.open(file))?.checkpoint,
  };
}

/** What is derived, by name with its component. */
const byName = ({ unet, textEncoder, textEncoder2 }: StableDiffusionLora) =>
  new Map(
    Object.entries({ unet, text_encoder: textEncoder, text_encoder_2: textEncoder2 }).flatMap(([component, tensors]) =>
      tensors.map((tensor) => [`${component}.${tensor.name}`, tensor] as const),
    ),
  );

test("every form of the goldens is tested", () => {
  const forms = readdirSync(folder).filter((file) => file.endsWith(".merged.safetensors"));
  expect(forms.map((file) => file.replace(".merged.safetensors", "")).sort()).toEqual(Object.keys(FORMS).sort());
});

test.each(Object.entries(FORMS))(
  "LoRA as %s has it merges into the weights that diffusers, or the formula by hand, gives",
  async (form, [model, weight]) => {
    const merged = await open(`${form}.merged.safetensors`);
    const lora = await stableDiffusionLora(bases[model], [{ checkpoint: await open(`${form}.safetensors`), weight }]);
    expect(lora.notes).toEqual([]);
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
  },
);

const merge = async (tensors: Record<string, Entry>, model: "sd1" | "sdxl" = "sdxl") =>
  stableDiffusionLora(bases[model], [{ checkpoint: await floatFile(tensors), weight: 1 }]);
const DOWN = ".lora_down.weight";
const UP = ".lora_up.weight";

describe("a convolution", () => {
  const path = "lora_unet_input_blocks_1_0_in_layers_2"; // [4, 4, 3, 3]
  test("of one pixel and a matrix may stand for each other", async () => {
    const projection = "lora_unet_middle_block_1_proj_in"; // [8, 8]
    const asMatrix = await merge({ [projection + DOWN]: entry([2, 8]), [projection + UP]: entry([8, 2]) });
    const asPixel = await merge({ [projection + DOWN]: entry([2, 8, 1, 1]), [projection + UP]: entry([8, 2, 1, 1]) });
    expect(asPixel.unet.map(({ name }) => name)).toEqual(["mid_block.attentions.0.proj_in.weight"]);
    expect(await asPixel.unet[0]?.make()).toEqual(await asMatrix.unet[0]?.make());
    const inSd1 = "lora_unet_mid_block_attentions_0_proj_in"; // [8, 8, 1, 1]
    const convolved = await merge({ [inSd1 + DOWN]: entry([2, 8]), [inSd1 + UP]: entry([8, 2]) }, "sd1");
    expect(convolved.unet[0]?.shape).toEqual([8, 8, 1, 1]);
  });

  test.each([
    ["another kernel", [2, 4, 1, 1], [4, 2, 1, 1]],
    ["no kernel", [2, 4], [4, 2]],
    ["a kernel in one", [2, 36], [4, 2]],
    ["a kernel in up", [2, 4, 3, 3], [4, 2, 3, 3]],
    ["other channels", [2, 8, 3, 3], [4, 2, 1, 1]],
  ])("with %s is refused", async (_, down, up) => {
    const message = await femoError("E_WEIGHT", () => merge({ [path + DOWN]: entry(down), [path + UP]: entry(up) }));
    expect(message).toMatch(/for "down_blocks\.0\.resnets\.0\.conv1" of the model, found/);
  });
});

test("text encoders may be named with text_model.", async () => {
  const file = { checkpoint: await open("kohya-sdxl.safetensors"), weight: 1 };
  const long = Object.fromEntries(
    (["textEncoder", "textEncoder2"] as const).map((part) => {
      const base = bases.sdxl[part] as Checkpoint;
      return [part, renamed(base, new Map(base.names().map((name) => [name, `text_model.${name}`])))];
    }),
  );
  const [short, found] = [
    await stableDiffusionLora(bases.sdxl, [file]),
    await stableDiffusionLora({ ...bases.sdxl, ...long }, [file]),
  ];
  expect(found.notes).toEqual([]);
  expect(found.textEncoder2.map(({ name }) => name)).toEqual(
    short.textEncoder2.map(({ name }) => `text_model.${name}`),
  );
});

test("what is for a text encoder that is not there, and what the model does not have, is noted", async () => {
  const { unet } = bases.sdxl;
  const file = { checkpoint: await open("kohya-sdxl.safetensors"), weight: 1 };
  const { notes } = await stableDiffusionLora({ unet }, [file]);
  expect(notes.join()).toContain('are for "text_encoder" and were not merged');
  expect(notes.join()).toContain('are for "text_encoder_2" and were not merged');
  const gone = "lora_te1_text_model_encoder_layers_23_mlp_fc1";
  const here = "lora_unet_out_2";
  const beyond = await merge({
    ...{ [gone + DOWN]: entry([1, 6]), [gone + UP]: entry([10, 1]) },
    ...{ [here + DOWN]: entry([1, 4, 3, 3]), [here + UP]: entry([4, 1, 1, 1]) },
  });
  expect(beyond.notes.join()).toMatch(/have no place in the model and were not merged.*[\s\S]*layers_23/);
  expect(beyond.unet.map(({ name }) => name)).toEqual(["conv_out.weight"]);
});

test("a module by the release's name and by diffusers' in one file is refused, as it would change twice", async () => {
  const names = ["lora_unet_out_2", "lora_unet_conv_out"];
  const tensors = names.flatMap((name) => [
    [name + DOWN, entry([1, 4, 3, 3])],
    [name + UP, entry([4, 1, 1, 1])],
  ]);
  const message = await femoError("E_WEIGHT", () => merge(Object.fromEntries(tensors)));
  expect(message).toContain("is for the same weights");
});

test.each(["lora_mid.weight", "hada_w1_a", "lokr_w1", "oft_blocks", "a1.weight", "diff", "dora_scale"])(
  "refused by name: %s",
  async (kind) => {
    const path = "lora_unet_out_2";
    const tensors = {
      [path + DOWN]: entry([1, 4, 3, 3]),
      [path + UP]: entry([4, 1, 1, 1]),
      [`${path}.${kind}`]: entry([1]),
    };
    expect(await femoError("E_WEIGHT", () => merge(tensors))).toContain(`"${path}.${kind}"`);
  },
);

test("any names and shapes merge or are refused by a FemoError, and what merges has the base's shape", async () => {
  const paths = [
    "lora_unet_out_2",
    "unet.conv_in",
    "lora_te2_text_projection",
    "lora_te_x",
    "text_encoder.",
    "__proto__",
    "",
  ];
  const endings = [DOWN, UP, ".lora_A.weight", ".lora_B.weight", ".processor.to_q_lora.down.weight", ".alpha", ""];
  const name = fc.tuple(fc.constantFrom(...paths), fc.constantFrom(...endings)).map(([path, ending]) => path + ending);
  const shape = fc.oneof(
    fc.constantFrom([1, 4, 3, 3], [4, 1, 1, 1], [1, 8], [5, 1], [4, 1]),
    fc.array(fc.nat(5), { maxLength: 5 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.dictionary(name, shape, { maxKeys: 6 }), async (shapes) => {
      const tensors = Object.entries(shapes).map(([key, dims]) => [key, entry(dims)] as const);
      try {
        const { unet } = await merge(Object.fromEntries(tensors));
        for (const tensor of unet) {
          expect(tensor.shape).toEqual(bases.sdxl.unet.get(tensor.name)?.shape);
          expect((await tensor.make()).length).toBe(4 * tensor.shape.reduce((a, b) => a * b, 1));
        }
      } catch (error) {
        expect(error).toBeInstanceOf(FemoError);
      }
    }),
    { numRuns: 200 },
  );
});
