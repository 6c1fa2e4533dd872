import type { RgbImage } from "../../images/index.js";
import {
  type Clip,
  type ClipRescaling,
  clipScore,
  type FidConvention,
  type GaussianFit,
  type ImageReward,
  type Inception,
  type Lpips,
  REWARD_TOKENS,
  type Tokenizer,
} from "../../metrics/index.js";
import { idsWithoutPadding } from "../../tokenizers/index.js";
import type { Judge, Judged } from "./judge.js";

/** Networks of published metrics, as `MetricNetworks` opens them. */
export interface JudgeNetworks {
  /** Frechet distance, of FID's layer and of sFID's; by which convention, and from what. */
  readonly fid?: {
    readonly network: Inception<"pool_3" | "spatial">;
    readonly convention: FidConvention;
    /** Of reference pictures; undefined: the uncached images. */
    readonly population?: Readonly<Record<"pool_3" | "spatial", GaussianFit>> | undefined;
  };
  readonly lpips?: { readonly network: Lpips };
  readonly clip?: { readonly network: Clip; readonly tokenizer: Tokenizer; readonly rescaling: ClipRescaling };
  readonly imageReward?: { readonly network: ImageReward; readonly tokenizer: Tokenizer };
}

const LAYERS = ["pool_3", "spatial"] as const;

/** Published metrics as a judge: LPIPS to each image, CLIP score and ImageReward of it with its prompt, features for FID and sFID. */
export function networkJudge({ fid, lpips, clip, imageReward }: JudgeNetworks): Judge {
  const texts = new Map<string, Promise<Float32Array>>();
  const textOf = (
    { network, tokenizer }: NonNullable<JudgeNetworks["clip"]>,
    prompt: string,
  ): Promise<Float32Array> => {
    const made =
      texts.get(prompt) ??
      network
        .textFeatures([idsWithoutPadding(tokenizer, prompt, network.maxTokens)])
        .then(([row]) => row as Float32Array);
    texts.set(prompt, made);
    return made;
  };
  return {
    layers: fid ? LAYERS : [],
    population: (layer) => fid?.population?.[layer as (typeof LAYERS)[number]],
    async judge(images, subjects) {
      const features = fid && (await fid.network.features(images, fid.convention));
      const seen = clip && (await clip.network.imageFeatures(images, clip.rescaling));
      const judged: Judged[] = [];
      for (const [i, image] of images.entries()) {
        const prompt = String(subjects[i]?.subject);
        const scores = {
          ...(clip && { clip: clipScore(seen?.[i] as Float32Array, await textOf(clip, prompt)) }),
          ...(imageReward && { imageReward: await rewardOf(imageReward, image, prompt) }),
        };
        const rows = fid ? LAYERS.map((layer) => [layer, features?.[layer][i] as Float32Array]) : [];
        judged.push({ scores, features: Object.fromEntries(rows) });
      }
      return judged;
    },
    async distance(images, wanted) {
      if (!lpips) return {};
      const values: number[] = [];
      for (const [i, image] of images.entries()) {
        values.push((await lpips.network.distance(image, wanted[i] as RgbImage)).value);
      }
      return { lpips: values };
    },
  };
}

const rewardOf = ({ network, tokenizer }: NonNullable<JudgeNetworks["imageReward"]>, image: RgbImage, prompt: string) =>
  network.reward(image, idsWithoutPadding(tokenizer, prompt, REWARD_TOKENS));
