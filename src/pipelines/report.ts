import type { ModelDtype, StepRecord } from "../denoising/index.js";
import type { CacheSettings, ChosenCache } from "../methods/index.js";
import type { SamplerName, SamplerSettings } from "../samplers/index.js";

/** What was done, and what it cost. */
export interface GenerationReport {
  readonly model: string;
  readonly dtype: ModelDtype;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  /** Of a model with prompts: strength of the guidance by a negative prompt; 1 if there is none. */
  readonly trueCfgScale?: number;
  /** Of the images, in pixels, if requests choose them. */
  readonly height?: number;
  readonly width?: number;
  /** Tokens that the second text encoder read, padding included. */
  readonly maxSequenceLength?: number;
  /** Of Stable Diffusion, if requests say them. */
  readonly guidanceRescale?: number;
  readonly clipSkip?: number;
  readonly strength?: number;
  readonly denoisingStart?: number;
  readonly denoisingEnd?: number;
  readonly sampler: SamplerName;
  /** Settings of the sampler that the request gave, if it gave some. */
  readonly samplerSettings?: SamplerSettings;
  readonly timestepSpacing: string;
  /** What in these settings is known to cost quality, a sentence each. */
  readonly warnings: readonly string[];
  readonly cache: CacheSettings;
  /** If the cache was chosen by quality: which one, and how far its images were from uncached ones when that was measured. */
  readonly quality?: NonNullable<ChosenCache["quality"]>;
  /** Each batch of images with all its runs of the network, several a step if its images decided differently. */
  readonly batches: readonly { readonly images: readonly number[]; readonly steps: readonly StepRecord[] }[];
  /** Steps that ran the whole network, of each image. */
  readonly fullSteps: readonly (readonly number[])[];
  /** Of these, the steps that the guard made full, of each image. */
  readonly guardedSteps: readonly (readonly number[])[];
  /** Floating-point operations of the denoising: done, those an uncached run of the same steps takes, and the ratio of the two. */
  readonly flops: { readonly done: number; readonly uncached: number; readonly speedup: number };
  /** The most bytes held for the features of one batch: their state, and the buffers into which the next full step writes. */
  readonly stateBytes: number;
  /** Time for reading the prompts, loading text encoders included. */
  readonly encodingMs: number;
  /** Time in the runtime for conditioning and steps, milliseconds; `totalMs` is the time from call to result. */
  readonly conditioningMs: number;
  readonly stepsMs: number;
  /** Time for turning the finished latents into images. */
  readonly decodingMs: number;
  readonly totalMs: number;
}
