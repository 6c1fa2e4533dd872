import * as z from "zod/mini";
import { measuredSettings, parseMeasured } from "./measured-file.js";
import type { CacheOptions, CachePresets } from "./settings.js";

/** What to trade for speed, by name, of models on which it was measured. */
export const qualityNames = ["quality", "balanced", "fast"] as const;
/** One of `qualityNames`. */
export type QualityName = (typeof qualityNames)[number];

/** How far images were from those without a cache, and at what cost. */
export interface MeasuredQuality {
  /** PSNR in dB against the uncached images of the same seeds. */
  readonly psnr: { readonly mean: number; readonly median: number; readonly tenthPercentile: number };
  readonly flopsSpeedup: number;
  /** How many images were drawn, and how. */
  readonly images: number;
  readonly sampler: string;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
}

/** A choice of cache with what it was measured to do. */
export interface CacheQuality {
  readonly cache: CacheOptions;
  readonly measured: MeasuredQuality;
}

/** Those of a model, by name. */
export type Qualities = Partial<Readonly<Record<QualityName, CacheQuality>>>;

const number = z.number();
const schema = z.partialRecord(
  z.enum(qualityNames),
  z.strictObject({
    cache: z.looseObject({ method: z.string() }),
    measured: z.strictObject({
      psnr: z.strictObject({ mean: number, median: number, tenthPercentile: number }),
      flopsSpeedup: number,
      images: number,
      sampler: z.string(),
      numInferenceSteps: number,
      guidanceScale: number,
    }),
  }),
);

/**
 * The qualities of a model.
 * @param json the content of its file of qualities
 * @param file named in errors
 * @throws FemoError E_CONFIG if it is malformed, or names a method, field or value that does not exist
 */
export function qualitiesFromJson(
  json: unknown,
  presets: CachePresets,
  levels: readonly string[],
  file: string,
): Qualities {
  const qualities = parseMeasured(schema, json, file) as Qualities;
  for (const [name, { cache }] of Object.entries(qualities)) {
    measuredSettings(cache, presets, levels, file, name);
  }
  return qualities;
}
