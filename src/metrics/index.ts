/**
 * How close images are to others, to prompts, and sets of images to each other: numbers of the reference packages, named
 * with the convention that they follow.
 * @module femo/metrics
 */
export type { ClassifierHead } from "../models/image-classifier.js";
export type { InceptionOutput } from "../models/inception-v3.js";
export type { LpipsNet } from "../models/lpips.js";
export type { Encoding, Tokenizer } from "../tokenizers/index.js";
export { Clip, type ClipRescaling, clipScore } from "./clip-score.js";
export { type FidOptions, fidResult } from "./fid.js";
export {
  type ExtrapolatedDistance,
  eigenvaluesOf,
  extrapolateFrechet,
  type FrechetDistance,
  frechetBias,
  frechetCounts,
  frechetDistance,
} from "./frechet.js";
export { type Classified, ImageClassifier, type LabelledPrompt } from "./image-classifier.js";
export { ImageReward, REWARD_TOKENS } from "./image-reward.js";
export {
  type ImageSource,
  imageTasks,
  pairTasks,
  promptTasks,
  type ReadImage,
  type ReadTask,
  type RowStore,
  type RowsOptions,
  rowsOfTasks,
  type Task,
} from "./image-sets.js";
export { type FidConvention, fidConventions, Inception } from "./inception.js";
export { type KernelDistance, type KernelDistanceOptions, kernelDistance } from "./kernel-distance.js";
export { Lpips, type LpipsDistance } from "./lpips.js";
export type { Matrix, PauseOptions } from "./matrix.js";
export { type MetricNetworkOptions, MetricNetworks, type WeightHashes } from "./metric-networks.js";
export { fitFeatures, fitMoments, type GaussianFit, MomentSums, type Moments } from "./moments.js";
export type { BytePixels, FloatPlanes, Pixels } from "./pixels.js";
export { type PrecisionRecall, precisionRecall } from "./precision-recall.js";
export { psnr } from "./psnr.js";
export { type ClipConvention, clipConventions } from "./published.js";
export { type MetricResult, meanResult } from "./result.js";
export { type SsimWindow, ssim } from "./ssim.js";
