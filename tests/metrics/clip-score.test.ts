import { describe, expect, test } from "vitest";
import { Clip, clipInput, clipScore } from "../../src/metrics/clip-score.js";
import { clipConfigFromJson } from "../../src/models/clip-vision.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { engineForTests } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { testImage } from "./hash-weights.js";
import { clipTensors } from "./hashed-networks.js";
import { hashedCheckpoint, temporaryFolder } from "./weight-file.js";

const engine = engineForTests();
const sessions = new Sessions(engine, 2 ** 32);
const folder = temporaryFolder();

const tiny = (activation: string) => ({
  projection_dim: 32,
  text_config: {
    ...{ hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4 },
    ...{ hidden_act: activation, eos_token_id: 2 },
  },
  vision_config: {
    ...{ hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 },
    ...{ image_size: 32, patch_size: 8, hidden_act: activation },
  },
});
const B32 = { text_config: { eos_token_id: 2 }, vision_config: {} };

async function open(name: string, json: unknown): Promise<Clip> {
  const config = clipConfigFromJson(json);
  return new Clip(config, await hashedCheckpoint(folder, `${name}.safetensors`, clipTensors(config)), sessions);
}

/** "a photo of a cat" */
const CAT = [49406, 320, 1125, 539, 320, 2368, 49407];
const images = [testImage(300, 260, 1), testImage(300, 260, 2)];

describe("equals transformers with the same weights", () => {
  const check = async (name: string, json: unknown, scores: readonly number[], image: number[], text: number[]) => {
    const clip = await open(name, json);
    const features = await clip.imageFeatures(images);
    const [words] = (await clip.textFeatures([CAT])) as [Float32Array];
    for (const [i, wanted] of image.entries()) expect(features[0]?.[i]).toBeCloseTo(wanted, 5);
    for (const [i, wanted] of text.entries()) expect(words[i]).toBeCloseTo(wanted, 5);
    for (const [i, wanted] of scores.entries()) {
      expect(clipScore(features[i] as Float32Array, words)).toBeCloseTo(wanted, 4);
    }
    return { clip, words };
  };

  test("tiny, quick_gelu; and images rescaled twice, as papers have them", async () => {
    const image = [0.602628, -0.320349, 1.012499, 0.287501];
    const text = [0.131634, 1.081372, 0.17485, -2.162295];
    const { clip, words } = await check("quick", tiny("quick_gelu"), [0.488286, 0.944482], image, text);
    const dark = await clip.imageFeatures(images, "twice-rescaled");
    for (const [i, wanted] of [-7.6937, -7.6906].entries()) {
      expect(Math.abs(clipScore(dark[i] as Float32Array, words) - wanted)).toBeLessThan(1e-3);
    }
  });

  test("tiny, gelu", () => check("gelu", tiny("gelu"), [0.650624, 1.026819], [], []));

  test.runIf(process.env.FEMO_SLOW === "1")("ViT-B/32", () => {
    const image = [-0.428842, -1.615712, -0.285257, -0.558972];
    return check("b32", B32, [0.224439, 0.925204], image, [-0.659591, 0.194497, 0.48511, -0.546768]);
  });
});

test("what is behind the end of a text changes nothing", async () => {
  const clip = await open("quick", tiny("quick_gelu"));
  const [alone] = (await clip.textFeatures([CAT])) as [Float32Array];
  for (const pad of [49407, 0]) {
    const [padded] = (await clip.textFeatures([[...CAT, pad, pad, pad]])) as [Float32Array];
    expect(clipScore(alone, padded)).toBeCloseTo(100, 4);
  }
});

test("the shortest side is resized and the middle cut out", () => {
  const { dims, data } = clipInput(testImage(300, 260, 1), 224);
  expect(dims).toEqual([3, 224, 224]);
  // (255 / 255 - mean) / std is the most there is.
  expect(data.reduce((a, b) => Math.max(a, b))).toBeLessThan(2.7);
  expect(clipInput(testImage(20, 31, 1), 32).dims).toEqual([3, 32, 32]);
});

test("half a pixel that is left over goes where the reference has it", () => {
  const image = testImage(37, 32, 1);
  const [down, up] = [clipInput(image, 32), clipInput(image, 32, { cropAt: (leftOver) => Math.ceil(leftOver / 2) })];
  // One column further: what was the second is the first.
  for (let y = 0; y < 32; y++) expect(up.data[y * 32]).toBe(down.data[y * 32 + 1]);
});

test("features of different lengths are refused", async () => {
  expect(await femoError("E_OPTION", () => clipScore([1, 2], [1]))).toContain("2 and 1");
});

describe("configs", () => {
  test("L/14 and g/14 have as many parameters as published", () => {
    const L14 = {
      projection_dim: 768,
      text_config: { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 },
      vision_config: {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        patch_size: 14,
      },
    };
    const count = clipTensors(clipConfigFromJson(L14)).reduce(
      (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
    expect(count).toBe(427_616_513);
  });

  test.each([
    ["hidden_size 65", { vision_config: { hidden_size: 65 } }],
    ["image_size 30", { vision_config: { image_size: 30, patch_size: 8 } }],
    ["hidden_act", { vision_config: { hidden_act: "constructor" } }],
    ["text_config", { text_config: { hidden_size: 0 } }],
    ["projection_dim", { projection_dim: -1 }],
  ])("%s is refused", async (field, json) => {
    expect(await femoError("E_CONFIG", () => clipConfigFromJson(json, "clip/config.json"))).toContain(field);
  });
});
