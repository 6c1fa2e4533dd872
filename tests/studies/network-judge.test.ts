import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Clip, clipScore } from "../../src/metrics/clip-score.js";
import { ImageReward } from "../../src/metrics/image-reward.js";
import { Lpips } from "../../src/metrics/lpips.js";
import { clipConfigFromJson } from "../../src/models/clip-vision.js";
import type { ImageRewardConfig } from "../../src/models/image-reward.js";
import { lpips, lpipsChannels } from "../../src/models/lpips.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { networkJudge } from "../../src/studies/index.js";
import { openTokenizer, wordPieceTokenizer } from "../../src/tokenizers/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { testImage } from "../metrics/hash-weights.js";
import { clipTensors, imageRewardTensors } from "../metrics/hashed-networks.js";
import { fanIn, hashedCheckpoint, temporaryFolder } from "../metrics/weight-file.js";
import { engineForTests } from "../runtime/helpers.js";

const sessions = new Sessions(engineForTests(), 2 ** 32);
const folder = temporaryFolder();
const models = (name: string) => nodeFolder(fileURLToPath(new URL(`../../models/${name}`, import.meta.url)));

const noLinear = lpipsChannels.squeeze.map((width) => new Float32Array(width));
const trunk = lpips("squeeze", 64, 64, noLinear)
  .reachable()
  .weights.map(({ name, shape }) => {
    const dims = shape as number[];
    return { name, shape: dims, scale: dims.length === 1 ? 0.1 : fanIn(6, dims) };
  });
const distance = await Lpips.open(
  "squeeze",
  await hashedCheckpoint(folder, "squeeze.safetensors", trunk),
  await openCheckpoint(models("lpips"), "squeeze.pth"),
  sessions,
);

const clipConfig = clipConfigFromJson({
  projection_dim: 32,
  text_config: {
    ...{ hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4, eos_token_id: 2 },
  },
  vision_config: {
    ...{
      hidden_size: 64,
      intermediate_size: 128,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      image_size: 32,
      patch_size: 8,
    },
  },
});
const clip = new Clip(
  clipConfig,
  await hashedCheckpoint(folder, "clip.safetensors", clipTensors(clipConfig)),
  sessions,
);
const clipTokenizer = await openTokenizer(models("avatars-flux"), "tokenizer");

const rewardConfig: ImageRewardConfig = {
  image: { width: 64, layers: 2, heads: 4, size: 32, patch: 16 },
  text: { width: 48, layers: 2, heads: 4, mlp: 96, vocabulary: 30_524, places: 512 },
};
const reward = await ImageReward.open(
  await hashedCheckpoint(folder, "reward.safetensors", imageRewardTensors(rewardConfig)),
  sessions,
  rewardConfig,
);
const words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fox", "hare"];
const rewardTokenizer = wordPieceTokenizer(words.join("\n"), { more: ["[DEC]", "[ENC]"], file: "vocab.txt" });

test("each image is measured with its own prompt and the image in its place", async () => {
  const judge = networkJudge({
    ...{ lpips: { network: distance }, clip: { network: clip, tokenizer: clipTokenizer, rescaling: "once" } },
    imageReward: { network: reward, tokenizer: rewardTokenizer },
  });
  const images = [testImage(64, 64, 1), testImage(64, 64, 2)] as const;
  const judged = await judge.judge(images, [{ subject: "a fox" }, { subject: "a hare" }]);
  for (const [i, prompt] of ["a fox", "a hare"].entries()) {
    const image = images[i] as (typeof images)[0];
    const { ids, tokens } = clipTokenizer.encode(prompt, clip.maxTokens);
    const [[seen], [text]] = [await clip.imageFeatures([image]), await clip.textFeatures([ids.slice(0, tokens)])];
    expect(judged[i]?.scores.clip).toBeCloseTo(clipScore(seen as Float32Array, text as Float32Array), 3);
    const wanted = await reward.reward(image, prompt === "a fox" ? [2, 5, 6, 3] : [2, 5, 7, 3]);
    expect(judged[i]?.scores.imageReward).toBeCloseTo(wanted, 5);
  }
  expect(judge.layers).toEqual([]);
  const { lpips: values } = await judge.distance(images, [images[0], images[0]]);
  expect(values).toEqual([0, (await distance.distance(images[1], images[0])).value]);
});

test("what was not opened is not measured", async () => {
  const judge = networkJudge({});
  const [judged] = await judge.judge([testImage(64, 64, 1)], [{ subject: "a fox" }]);
  expect(judged).toEqual({ scores: {}, features: {} });
  expect(await judge.distance([testImage(64, 64, 1)], [testImage(64, 64, 2)])).toEqual({});
});
