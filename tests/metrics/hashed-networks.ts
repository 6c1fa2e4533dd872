import { clipTextEncoder } from "../../src/models/clip-text.js";
import { type ClipConfig, clipVisionEncoder } from "../../src/models/clip-vision.js";
import { type ImageRewardConfig, imageReward, rewardTensors } from "../../src/models/image-reward.js";
import { inceptionV3 } from "../../src/models/inception-v3.js";
import { fanIn, type HashedTensor } from "./weight-file.js";

/** The tensors of pytorch-fid's file, hashed. */
export function inceptionTensors(): HashedTensor[] {
  const { weights } = inceptionV3(["logits"]).reachable();
  const convs = weights.filter(({ shape }) => shape.length === 4);
  return [
    ...convs.flatMap(({ name, shape }): HashedTensor[] => {
      const layer = name.replace(/\.weight$/, "");
      const channels = [shape[0] as number];
      return [
        { name: `${layer}.conv.weight`, shape: shape as number[], scale: fanIn(6, shape as number[]) },
        { name: `${layer}.bn.weight`, shape: channels, scale: 0.25, offset: 1 },
        { name: `${layer}.bn.bias`, shape: channels, scale: 0.1 },
        { name: `${layer}.bn.running_mean`, shape: channels, scale: 0.1 },
        { name: `${layer}.bn.running_var`, shape: channels, scale: 0.25, offset: 1 },
      ];
    }),
    { name: "fc.weight", shape: [1008, 2048], scale: fanIn(6, [1008, 2048]) },
    { name: "fc.bias", shape: [1008], scale: 0.1 },
  ];
}

/** LayerNorm weights about 1, biases and embeddings small, the rest by fan-in: what a CLIP is like, hashed. */
export function clipTensors(config: ClipConfig): HashedTensor[] {
  const text = clipTextEncoder(config.text, ["projected"]).reachable().weights;
  const image = clipVisionEncoder(config.vision).reachable().weights;
  const names = [
    ...text.map(({ name, shape }) => ({
      name: name === "text_projection.weight" ? name : `text_model.${name}`,
      shape,
    })),
    ...image,
    { name: "logit_scale", shape: [] },
  ];
  return names.map(({ name, shape }): HashedTensor => {
    const dims = shape as number[];
    if (/norm\d?\.weight$/.test(name)) return { name, shape: dims, scale: 0.1, offset: 1 };
    if (name.endsWith(".bias")) return { name, shape: dims, scale: 0.05 };
    if (/(class|position|token)_embedding/.test(name)) return { name, shape: dims, scale: 0.5 };
    return { name, shape: dims, scale: fanIn(3, dims) };
  });
}

/** LayerNorm weights about 1, biases and embeddings small, the rest by fan-in: what ImageReward is like, hashed. */
export function imageRewardTensors(config: ImageRewardConfig): HashedTensor[] {
  const { weights } = imageReward(config).reachable();
  return [...weights, ...rewardTensors(config.text.width)].map(({ name, shape }): HashedTensor => {
    const dims = shape as number[];
    if (/(norm\d?|LayerNorm)\.weight$/.test(name)) return { name, shape: dims, scale: 0.1, offset: 1 };
    if (name.endsWith(".bias")) return { name, shape: dims, scale: 0.05 };
    if (/pos_embed|cls_token|_embeddings\./.test(name)) return { name, shape: dims, scale: 0.5 };
    return { name, shape: dims, scale: fanIn(3, dims) };
  });
}
