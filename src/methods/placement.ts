import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { parseMeasured } from "./measured-file.js";
import type { CacheSettings } from "./settings.js";

/** How a request samples, as far as the place of full steps depends on it. */
export interface Sampling {
  readonly sampler: string;
  readonly timestepSpacing: string;
  readonly numInferenceSteps: number;
}

/** Where full steps are worth most on a model, as measured: sets of them, each of another size. */
export interface PlacedSchedule extends Sampling {
  readonly fullSteps: readonly (readonly number[])[];
}

const step = z.int().check(z.nonnegative());
const schema = z.array(
  z.strictObject({
    sampler: z.string(),
    timestepSpacing: z.string(),
    numInferenceSteps: z.int().check(z.minimum(1)),
    fullSteps: z.array(z.array(step).check(z.minLength(1))),
  }),
);

/**
 * The placed schedules of a model.
 * @param json the content of its file of schedules
 * @param file named in errors
 * @throws FemoError E_CONFIG if it is malformed, or a set does not rise from step 0 to one below the number of steps
 */
export function schedulesFromJson(json: unknown, file: string): readonly PlacedSchedule[] {
  const schedules = parseMeasured(schema, json, file);
  for (const { numInferenceSteps, fullSteps } of schedules) {
    for (const set of fullSteps) {
      const rises = set.every((value, i) => (i === 0 ? value === 0 : value > (set[i - 1] as number)));
      if (rises && (set.at(-1) as number) < numInferenceSteps) continue;
      throw new FemoError(
        "E_CONFIG",
        `${file}: fullSteps: expected steps that rise from 0 to at most ${numInferenceSteps - 1}, found ${set.join(" ")}`,
      );
    }
  }
  return schedules;
}

/** Whether the settings say how many steps are full, not which; of a solver all are. */
export const isToBePlaced = <S extends CacheSettings>(
  settings: S,
): settings is Exclude<S, { method: "calibrated" }> & { readonly fullSteps: number } =>
  settings.method !== "calibrated" && "fullSteps" in settings && typeof settings.fullSteps === "number";

/**
 * Settings whose number of full steps has become the steps themselves.
 * @throws FemoError E_OPTION if none were placed on this model for such a number, sampler and number of steps
 */
export function placeFullSteps<S extends CacheSettings>(
  settings: S,
  schedules: readonly PlacedSchedule[],
  sampling: Sampling,
): S {
  if (!isToBePlaced(settings)) return settings;
  const { fullSteps: count } = settings;
  const placed = placedFor(schedules, sampling);
  const fullSteps = placed.find(({ length }) => length === count);
  if (fullSteps) return { ...settings, fullSteps };
  const { sampler, timestepSpacing, numInferenceSteps } = sampling;
  const known = placed.map(({ length }) => length).join(", ");
  throw new FemoError(
    "E_OPTION",
    `cache: fullSteps: expected ${known ? `one of ${known}, or ` : ""}a list of steps, found ${count}: the model has no ` +
      `placement of ${count} full steps among ${numInferenceSteps} of ${sampler} with "${timestepSpacing}" spacing. Use interval, or list the steps.`,
  );
}

/** The sets of full steps that were placed for a way to sample. */
export const placedFor = (schedules: readonly PlacedSchedule[], sampling: Sampling): readonly (readonly number[])[] =>
  schedules
    .filter(
      ({ sampler, timestepSpacing, numInferenceSteps }) =>
        sampler === sampling.sampler &&
        timestepSpacing === sampling.timestepSpacing &&
        numInferenceSteps === sampling.numInferenceSteps,
    )
    .flatMap(({ fullSteps }) => fullSteps);
