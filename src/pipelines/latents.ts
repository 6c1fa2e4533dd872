import { TorchGenerator } from "../samplers/index.js";
import type { Request } from "./request.js";

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The noise that the given images of a request start from, [images, C, H, W]. */
export function initialLatents(
  { latents, seeds, sampler }: Request,
  images: readonly number[],
  sampleShape: readonly number[],
): Float32Array {
  const size = sizeOf(sampleShape);
  const out = new Float32Array(images.length * size);
  images.forEach((image, i) => {
    const noise = latents
      ? latents.subarray(image * size, (image + 1) * size)
      : new TorchGenerator(seeds[image] as number).randn([1, ...sampleShape]).map((x) => x * sampler.initNoiseSigma);
    out.set(noise, i * size);
  });
  return out;
}

/** Latents as the model wants them: with guidance a second time, for the rows without a class. */
export function modelInput(latents: Float32Array, guided: boolean): Float32Array {
  if (!guided) return latents;
  const twice = new Float32Array(2 * latents.length);
  twice.set(latents);
  twice.set(latents, latents.length);
  return twice;
}

/**
 * Classifier-free guidance, e = e0 + scale (e1 - e0), on the guided channels; the others keep the value with class, e1.
 * A learned variance, the second half of the output channels, is dropped.
 * @param output [rows, C', H, W]: the images' rows with class, then, if guided, those without
 * @returns [images, C, H, W]
 */
export function guide(
  { guided, guidanceScale, guidanceChannels }: Request,
  output: Float32Array,
  images: number,
  [channels = 0, ...area]: readonly number[],
): Float32Array {
  const pixels = sizeOf(area);
  const size = channels * pixels;
  const stride = output.length / (guided ? 2 * images : images);
  const changed = guided ? (guidanceChannels === "all" ? channels : guidanceChannels) * pixels : 0;
  const result = new Float32Array(images * size);
  for (let i = 0; i < images; i++) {
    result.set(output.subarray(i * stride, i * stride + size), i * size);
    for (let j = 0; j < changed; j++) {
      const e1 = output[i * stride + j] as number;
      const e0 = output[(images + i) * stride + j] as number;
      result[i * size + j] = e0 + guidanceScale * (e1 - e0);
    }
  }
  return result;
}
