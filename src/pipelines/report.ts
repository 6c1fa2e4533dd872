import type { SamplerName } from "../samplers/index.js";
import type { CacheSettings } from "./cache-options.js";
import type { MeasuredForecast } from "./coefficients.js";
import type { ModelDtype } from "./dtype.js";

/** One denoising step of one batch. */
export interface StepRecord {
  /** 0 .. steps - 1, in sampling order. */
  readonly step: number;
  /** Fed to the model. */
  readonly timestep: number;
  readonly kind: "full" | "forecast";
  /** Time in the runtime, milliseconds. */
  readonly durationMs: number;
  /** Floating-point operations, two for each multiply-add. */
  readonly flops: number;
  /** At full steps after the first, if measured: how far the forecast of this step would have been off. */
  readonly forecastError?: MeasuredForecast;
  /** Momentum coefficient over features and samples, for methods that have one. */
  readonly beta?: { readonly mean: number; readonly min: number; readonly max: number };
}

/** What was done, and what it cost. */
export interface GenerationReport {
  readonly model: string;
  readonly dtype: ModelDtype;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  readonly sampler: SamplerName;
  readonly timestepSpacing: string;
  /** What in these settings is known to cost quality, a sentence each. */
  readonly warnings: readonly string[];
  readonly cache: CacheSettings;
  /** One list of steps for each batch of images. */
  readonly batches: readonly { readonly images: readonly number[]; readonly steps: readonly StepRecord[] }[];
  /** Steps that ran the whole network, of each batch. */
  readonly fullSteps: readonly number[];
  /** Floating-point operations of the denoising: done, those an uncached run of the same steps takes, and the ratio of the two. */
  readonly flops: { readonly done: number; readonly uncached: number; readonly speedup: number };
  /** Bytes held for the features of one batch: their state, and the buffers into which the next full step writes. */
  readonly stateBytes: number;
  /** Time in the runtime for conditioning and steps, milliseconds; `totalMs` is the time from call to result. */
  readonly conditioningMs: number;
  readonly stepsMs: number;
  /** Time for turning the finished latents into images. */
  readonly decodingMs: number;
  readonly totalMs: number;
}
