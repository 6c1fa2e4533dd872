import { decodePng, encodePng, type RgbImage } from "../../images/index.js";
import type { GenerateOptions, GenerationResult } from "../../pipelines/index.js";
import { seedAfter } from "../../samplers/index.js";
import type { StudySubjects } from "../subjects.js";

/** Keeps what images are to come near to, so that it is drawn once, by whichever fit comes first. */
export interface TargetStore {
  /** What was kept under a key, which is a text of any length. */
  get(key: string): Promise<Uint8Array | undefined>;
  /** When this is done it is there, whatever happens to the process. */
  set(key: string, bytes: Uint8Array): Promise<void>;
}

/** As what targets are compared with, and how they are kept. */
export interface TargetForm<T> {
  readonly outputType: "latent" | "image";
  /** Those of a result of so many images. */
  of(result: GenerationResult, count: number): T[];
  bytesOf(target: T): Uint8Array;
  fromBytes(bytes: Uint8Array): T;
}

/** Finished latents, float32 in the order of this machine. */
export const latentTargets: TargetForm<Float32Array> = {
  outputType: "latent",
  of({ latents }, count) {
    const size = latents.length / count;
    return Array.from({ length: count }, (_, i) => latents.subarray(i * size, (i + 1) * size));
  },
  bytesOf: ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength),
  fromBytes: (bytes) => new Float32Array(bytes.slice().buffer),
};

/** Images, as PNG files. */
export const imageTargets: TargetForm<RgbImage> = {
  outputType: "image",
  of: ({ images }) => [...images],
  bytesOf: encodePng,
  fromBytes: (bytes) => decodePng(bytes).image,
};

/** Images to be drawn: their subjects, and the seed of the first. */
export interface TargetImages {
  readonly subjects: StudySubjects;
  readonly seed: number | bigint;
}

/**
 * Draws images, a batch at a time, but for batches that were kept.
 * @param model what the store knows it as
 * @param common what all have in common
 * @param draw told how many of the images come before
 */
export async function keptTargets<T>(
  model: string,
  { subjects, seed }: TargetImages,
  common: GenerateOptions,
  { outputType, of, bytesOf, fromBytes }: TargetForm<T>,
  store: TargetStore | undefined,
  draw: (part: GenerateOptions, before: number) => Promise<GenerationResult>,
): Promise<T[]> {
  const { batchSize = 4, signal: _signal, ...settings } = common;
  const seedOf = (i: number) => seedAfter(seed, i);
  const targets: T[] = [];
  while (targets.length < subjects.count) {
    const before = targets.length;
    const indices = Array.from({ length: Math.min(batchSize, subjects.count - before) }, (_, k) => before + k);
    const keys = indices.map((i) =>
      JSON.stringify([model, outputType, settings, subjects.slice(i, i + 1), `${seedOf(i)}`]),
    );
    const kept = (await Promise.all(keys.map((key) => store?.get(key)))).filter((bytes) => bytes !== undefined);
    if (kept.length === keys.length) {
      targets.push(...kept.map(fromBytes));
      continue;
    }
    const part = { ...common, ...subjects.slice(before, before + batchSize), seed: seedOf(before), outputType };
    const drawn = of(await draw(part, before), keys.length);
    for (const [k, target] of drawn.entries()) await store?.set(keys[k] as string, bytesOf(target));
    targets.push(...drawn);
  }
  return targets;
}
