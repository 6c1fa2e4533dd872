import type { RgbImage } from "../../images/index.js";
import { type GaussianFit, type ImageClassifier, psnr, ssim } from "../../metrics/index.js";
import { ssimFits } from "../rows.js";
import type { StudySubject } from "./plan.js";

/** What a judge says of an image. */
export interface Judged {
  /** By name, such as its share of right labels. */
  readonly scores: Readonly<Record<string, number>>;
  /** For each layer whose Frechet distance is measured. */
  readonly features: Readonly<Record<string, Float32Array>>;
}

/** Who measures a study's images, beside PSNR and SSIM. */
export interface Judge {
  readonly layers: readonly string[];
  /** What images as a whole should be like, in a layer. Undefined: like the uncached ones. */
  population(layer: string): GaussianFit | undefined;
  /** What it says of images, and of what they were to show. */
  judge(images: readonly RgbImage[], subjects: readonly StudySubject[]): Promise<Judged[]>;
  /** Of each image from the one in its place: by name, one for each. */
  distance(
    images: readonly RgbImage[],
    wanted: readonly RgbImage[],
  ): Promise<Readonly<Record<string, readonly number[]>>>;
}

/** Likeness that needs no network: in decibels, Infinity of equal images, and at most 1. */
export function likenesses(
  images: readonly RgbImage[],
  wanted: readonly RgbImage[],
): Readonly<Record<string, readonly number[]>> {
  const pairs = images.map((image, i) => [image, wanted[i] as RgbImage] as const);
  return {
    psnr: pairs.map(([a, b]) => psnr(a, b)),
    ...(ssimFits(images) && { ssim: pairs.map(([a, b]) => ssim(a, b)) }),
  };
}

const LAYERS = ["features_0", "features_1"] as const;

/** A classifier as a judge: which labels are right, how far images are in its maps, and how their features are distributed. */
export function classifierJudge(classifier: ImageClassifier): Judge {
  return {
    layers: LAYERS,
    population: (layer) => classifier.heldOut[LAYERS.indexOf(layer as (typeof LAYERS)[number]) as 0 | 1],
    async judge(images, subjects) {
      const classified = await classifier.classify(images);
      return classified.map(({ labels, features }, i) => {
        const wanted = subjects[i]?.labels ?? {};
        const told = classifier.heads.flatMap(({ name }, head) =>
          wanted[name] === undefined ? [] : [[name, labels[head] === wanted[name] ? 1 : 0] as const],
        );
        const right = told.reduce((sum, [, value]) => sum + value, 0);
        return {
          scores: { ...(told.length > 0 && { accuracy: right / told.length }), ...Object.fromEntries(told) },
          features: { [LAYERS[0]]: features[0], [LAYERS[1]]: features[1] },
        };
      });
    },
    async distance(images, wanted) {
      return { distance: await classifier.distances(images, wanted) };
    },
  };
}
