import { describe, expect, test } from "vitest";
import { ImageReward } from "../../src/metrics/image-reward.js";
import { type ImageRewardConfig, imageReward, imageRewardConfig } from "../../src/models/image-reward.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { engineForTests } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { testImage } from "./hash-weights.js";
import { imageRewardTensors } from "./hashed-networks.js";
import { hashedCheckpoint, temporaryFolder } from "./weight-file.js";

const engine = engineForTests();
const sessions = new Sessions(engine, 2 ** 32);
const folder = temporaryFolder();

const tiny: ImageRewardConfig = {
  image: { width: 64, layers: 2, heads: 4, size: 32, patch: 16 },
  text: { width: 48, layers: 2, heads: 4, mlp: 96, vocabulary: 30_524, places: 512 },
};
/** "a painting of a cat" */
const IDS = [101, 1037, 6302, 1997, 1037, 4937, 102];

async function open(name: string, config: ImageRewardConfig): Promise<ImageReward> {
  return ImageReward.open(
    await hashedCheckpoint(folder, `${name}.safetensors`, imageRewardTensors(config)),
    sessions,
    config,
  );
}

describe("equals the package image-reward with the same weights", () => {
  test("tiny", async () => {
    const model = await open("tiny", tiny);
    const image = testImage(32, 32, 1);
    const [state] = (await model.states([image], [IDS])) as [Float32Array];
    for (const [i, wanted] of [0.782132, 0.649378, -0.790375, 0.339951].entries())
      expect(state[i]).toBeCloseTo(wanted, 5);
    expect(await model.reward(image, IDS)).toBeCloseTo(-0.12852, 5);
    expect(await model.reward(image, [30_523, ...IDS.slice(1)])).toBeCloseTo(-0.248896, 5);
  });

  test.runIf(process.env.FEMO_SLOW === "1")("in its full size", async () => {
    const model = await open("full", imageRewardConfig);
    const image = testImage(300, 260, 1);
    const [state] = (await model.states([image], [IDS])) as [Float32Array];
    for (const [i, wanted] of [1.948763, -0.571288, -0.549632, -0.405222].entries()) {
      expect(Math.abs((state[i] as number) - wanted)).toBeLessThan(1e-4);
    }
    expect(Math.abs((await model.reward(image, IDS)) - -1.42478)).toBeLessThan(1e-4);
  });
});

test("446,665,953 parameters, without the projections that nothing is computed with", () => {
  const count = imageRewardTensors(imageRewardConfig).reduce(
    (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1),
    0,
  );
  expect(446_665_953 - count).toBe(256 * 1024 + 256 + 256 * 768 + 256);
});

test("ids that the network does not know, and pairs that are none, are refused", async () => {
  const model = await open("tiny", tiny);
  const image = testImage(32, 32, 1);
  expect(await femoError("E_OPTION", () => model.reward(image, [101, 40_000]))).toContain("40000");
  expect(await femoError("E_OPTION", () => model.states([image], [IDS, IDS]))).toContain("1 images and 2 prompts");
});

test("another network's weights are refused", async () => {
  const tensors = imageRewardTensors(tiny).filter(({ name }) => name !== "mlp.layers.4.bias");
  const checkpoint = await hashedCheckpoint(folder, "wrong.safetensors", tensors);
  expect(await femoError("E_WEIGHT", () => ImageReward.open(checkpoint, sessions, tiny))).toContain(
    "mlp.layers.4.bias",
  );
  const names = imageReward(tiny)
    .reachable()
    .weights.map(({ name }) => name);
  expect(names).toContain("blip.text_encoder.encoder.layer.1.crossattention.self.key.weight");
});
