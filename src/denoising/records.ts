import type { Bindings } from "../graph/index.js";
import type { Method } from "../methods/index.js";
import type { Sampler } from "../samplers/index.js";
import type { Backbone } from "./backbone.js";
import type { MeasuredForecast } from "./coefficients.js";
import type { Conditioning } from "./conditioning.js";
import type { GuidanceRow } from "./guidance.js";

/** One run of the network for some images at one step. */
export interface StepRecord {
  /** 0 .. steps - 1, in sampling order. */
  readonly step: number;
  /** Fed to the model. */
  readonly timestep: number;
  /** Which of the method's kinds of step it was, such as "full" or "forecast". */
  readonly kind: string;
  /** Whether the whole network was computed. */
  readonly full: boolean;
  /** Which images, by their index in the request. */
  readonly images: readonly number[];
  /** Time in the runtime, milliseconds. */
  readonly durationMs: number;
  /** Floating-point operations, two for each multiply-add. */
  readonly flops: number;
  /** At full steps after the first, if measured: how far the forecast of this step would have been off. */
  readonly forecastError?: MeasuredForecast;
  /** Momentum coefficient over features and samples, for methods that have one. */
  readonly beta?: { readonly mean: number; readonly min: number; readonly max: number };
  /** The policy, or the guard, threw the result away and had the step run again. */
  readonly rejected?: true;
  /** Images whose step is full because the guard wanted it. */
  readonly guarded?: readonly number[];
}

/** A record, and where its images stand after the step. */
export interface DenoisingStep extends StepRecord {
  /** The noisy images after the step, [images, ...sample] row-major; not to be changed. */
  readonly latents: Float32Array;
}

/** An image to be drawn. */
export interface ImageStart {
  readonly index: number;
  readonly rows: readonly GuidanceRow[];
  readonly sizes: Bindings;
  /** The noise that it starts from. */
  readonly latent: Float32Array;
  /** The model's inputs that vary with the image, by name. */
  readonly given?: Readonly<Record<string, Float32Array>>;
  /** What becomes of a latent behind each step, such as what of a picture stays as it is; pure. */
  readonly keep?: (step: number, latent: Float32Array) => Float32Array;
  /** Of a stochastic sampler: a fresh standard normal sample as long, from the generator that drew the latent. */
  readonly draw?: () => Float32Array;
}

export interface Denoising {
  readonly backbone: Backbone;
  readonly sampler: Sampler;
  readonly method: Method;
  readonly conditioning: Conditioning;
  readonly images: readonly ImageStart[];
  /** How many channels are guided; "all" for every one. */
  readonly guidanceChannels: "all" | number;
  /** As `guide` takes it. Default 0. */
  readonly guidanceRescale?: number;
  /** Of the names under which the engine holds what the images need. */
  readonly prefix: string;
  readonly signal?: AbortSignal | undefined;
  /** Shown what the graphs of the steps give that stays with nobody: marks, and features of methods that keep none. */
  readonly observe?: Observer | undefined;
}

/** What a step's graph gave of one image, by the name of the output (`graphNames`). */
export type Observed = Readonly<
  Record<string, { /** Of one row. */ readonly dims: readonly number[]; readonly rows: readonly Float32Array[] }>
>;

/** What an image's sampler is given at a step, before it moves. */
export interface Sampled {
  readonly sampler: Sampler;
  /** Where the image stands. */
  readonly latent: Float32Array;
  /** What the network says of it, its rows guided. */
  readonly output: Float32Array;
}

/** @param image by its index in the request */
export type Observer = (image: number, step: number, outputs: Observed, sampled: Sampled) => void;

/** Where a denoising ended. */
export interface Denoised {
  /** The finished latent of every image, in the order in which they were given. */
  readonly latents: readonly Float32Array[];
  /** The most bytes that the features of the images took before a step. */
  readonly stateBytes: number;
}
