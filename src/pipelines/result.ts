import type { RgbImage } from "../images/index.js";
import type { Shown } from "./family.js";
import type { GenerationReport } from "./report.js";

/** An image of a result, and what it shows. */
export interface GeneratedImage extends RgbImage, Shown {
  /** Draws this image alone; undefined if the request brought its own latents. */
  readonly seed: number | bigint | undefined;
}

/** What a request gives. */
export interface GenerationResult {
  /** Empty with the output type "latent". */
  readonly images: readonly GeneratedImage[];
  /** The finished latents, or the pixels in -1 .. 1 of a model that draws pixels, [images, C, H, W] row-major. */
  readonly latents: Float32Array;
  readonly report: GenerationReport;
}
