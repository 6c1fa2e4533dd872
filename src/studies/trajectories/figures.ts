import { FemoError } from "../../errors.js";
import type { CacheMethod, CacheOptions, CacheSettings } from "../../methods/index.js";
import { checkInteger } from "../../pipelines/option-types.js";
import { quantile } from "../quality.js";
import {
  type ForecastMiss,
  forecastingMethods,
  missOf,
  type OpenLoopMethod,
  openLoop,
  openLoopMethod,
} from "./open-loop.js";
import { type PlanePoint, planeOfGram } from "./plane.js";
import type { Trajectories, Trajectory, TrajectoryRow } from "./record.js";

/** What values of many forecasts say as a whole. */
export interface Spread {
  readonly mean: number;
  readonly lowerQuartile: number;
  readonly median: number;
  readonly upperQuartile: number;
  readonly count: number;
}

const spreadOf = (values: readonly number[]): Spread => ({
  mean: values.reduce((a, b) => a + b, 0) / values.length,
  lowerQuartile: quantile(values, 0.25),
  median: quantile(values, 0.5),
  upperQuartile: quantile(values, 0.75),
  count: values.length,
});

/** A step of a method's path: where its feature lies, forecast or true, and how far it is off. */
export interface PathStep extends PlanePoint, ForecastMiss {
  readonly step: number;
  readonly full: boolean;
  /** In force, if the method has one. */
  readonly beta?: number;
}

/** A path, and methods' forecasts laid over it. */
export interface ForecastPaths extends Pick<Trajectory, "subject" | "seed"> {
  readonly level: string;
  readonly site: string;
  /** What share of the path's variance each axis of the plane has, 0 to 1. */
  readonly shares: readonly [number, number];
  /** The recorded path, a point each step. */
  readonly truth: readonly PlanePoint[];
  readonly methods: readonly {
    readonly title: string;
    readonly settings: CacheSettings;
    readonly path: readonly PathStep[];
  }[];
}

/** Of `forecastPaths`. */
export interface ForecastPathsOptions {
  /** Default: every one of `forecastingMethods`, with the model's presets. */
  readonly methods?: readonly CacheOptions[];
  /** Which image, by its index in the study, and which of its rows. Default 0 and 0. */
  readonly image?: number;
  readonly row?: number;
}

/**
 * A feature's path in the plane of its first two principal components, with every method's forecasts laid over it: figures 1,
 * 2 and 10 of the FEMO paper. Full steps lie on the path; in between a method goes its own way, and comes back at the next.
 * @throws FemoError E_OPTION if there is no such image or row; as `openLoopMethod`
 */
export function forecastPaths(
  trajectories: Trajectories,
  { methods = forecastingMethods, image = 0, row = 0 }: ForecastPathsOptions = {},
): ForecastPaths {
  const { level, site, positions, trajectories: all } = trajectories;
  checkInteger("image", image, 0, all.length - 1);
  const trajectory = all[image] as Trajectory;
  checkInteger("row", row, 0, trajectory.rows.length - 1);
  const { gram } = trajectory.rows[row] as TrajectoryRow;
  const plane = planeOfGram(gram);
  return {
    ...{ subject: trajectory.subject, seed: trajectory.seed, level, site },
    shares: plane.shares,
    truth: plane.points,
    methods: methods.map((cache) => {
      const method = openLoopMethod(trajectories, cache);
      const path = Array.from(openLoop(method, trajectory, positions), ({ step, full, forecast, betas }): PathStep => {
        const beta = betas && { beta: betas[row] as number };
        if (full) return { step, full, ...(plane.points[step] as PlanePoint), relativeError: 0, cosine: 1, ...beta };
        const weights = forecast(step)[row] as readonly number[];
        return { step, full, ...plane.project(weights), ...missOf(gram, weights, step), ...beta };
      });
      return { title: method.title, settings: method.settings, path };
    }),
  };
}

/** How the errors of a method's forecasts grow. */
export interface HorizonErrors {
  readonly title: string;
  readonly settings: CacheSettings;
  /** |F - F^| / |F| at each distance in steps from the last full step, over images, their rows and full steps. */
  readonly distances: readonly (Spread & { readonly distance: number })[];
}

/** Of `errorOverHorizon`. */
export interface HorizonOptions {
  /** Default: every one of `forecastingMethods`, with the model's presets. */
  readonly methods?: readonly CacheOptions[];
  /** How many steps ahead, 1 to one less than there are. Default: twice the longest interval of the methods. */
  readonly horizon?: number;
}

/**
 * How the error of forecasts grows with the distance from the last full step, up to the interval and beyond it. It begins at
 * every full step of a method's schedule, the first ones but the last of them left out, from which the whole horizon lies
 * within the path: each distance is of the same steps. Late steps are forecast from near alone.
 * @throws FemoError E_OPTION if the horizon is longer than the path; as `openLoopMethod`
 */
export function errorOverHorizon(
  trajectories: Trajectories,
  { methods: named = forecastingMethods, horizon: wanted }: HorizonOptions = {},
): HorizonErrors[] {
  const steps = trajectories.timesteps.length;
  const methods = named.map((cache) => openLoopMethod(trajectories, cache));
  const horizon = wanted ?? Math.min(steps - 2, 2 * Math.max(1, ...methods.map(longestInterval)));
  checkInteger("horizon", horizon, 1, steps - 1);
  return methods.map((method) => {
    const errors = Array.from({ length: horizon }, (): number[] => []);
    for (const trajectory of trajectories.trajectories) {
      for (const { step, full, forecast } of openLoop(method, trajectory, trajectories.positions)) {
        const isFirst = full && method.full[step + 1] === true; // more of them follow at once
        if (!full || isFirst || step + horizon >= steps) continue;
        for (const [ahead, of] of errors.entries()) of.push(...errorsAt(trajectory, forecast, step + ahead + 1));
      }
    }
    if (errors[0]?.length === 0) {
      throw new FemoError(
        "E_OPTION",
        `horizon: no full step of ${method.title} has ${horizon} steps behind it: expected less`,
      );
    }
    const distances = errors.map((values, i) => ({ distance: i + 1, ...spreadOf(values) }));
    return { title: method.title, settings: method.settings, distances };
  });
}

const errorsAt = ({ rows }: Trajectory, forecast: (step: number) => readonly (readonly number[])[], step: number) =>
  forecast(step).map((weights, row) => missOf(rows[row]?.gram as TrajectoryRow["gram"], weights, step).relativeError);

/** Steps from a full one to the next, at most. */
function longestInterval({ full }: OpenLoopMethod): number {
  const at = full.flatMap((isFull, step) => (isFull ? [step] : []));
  return Math.max(1, ...at.slice(1).map((step, i) => step - (at[i] as number)));
}

/** A method at one of many settings. */
export interface AblationRow {
  /** Those that vary. */
  readonly varied: Readonly<Record<string, unknown>>;
  readonly settings: CacheSettings;
  /** Network runs. */
  readonly fullSteps: number;
  /** |F - F^| / |F| over all forecasts, of all images and their rows; undefined if every step is a full one. */
  readonly relativeError: Spread | undefined;
}

/**
 * The mean error of a method's forecasts at every combination of settings, by the recorded paths alone: the appendix tables
 * and figures E1 and E2 of the FEMO paper. No network runs, so grids may be dense.
 * @param cache the method, and the settings that do not vary
 * @param grid fields of the method, each with the values that it takes, such as `{ interval: [3, 5, 7], beta: [-0.2, 0, 0.2] }`
 * @returns a row for each combination, the last field varying fastest
 * @throws FemoError E_OPTION as `openLoopMethod`
 */
export function ablation(
  trajectories: Trajectories,
  cache: CacheOptions,
  grid: Readonly<Record<string, readonly unknown[]>>,
): AblationRow[] {
  const given: { readonly method: CacheMethod } = typeof cache === "string" ? { method: cache } : cache;
  const combinations = Object.entries(grid).reduce<Record<string, unknown>[]>(
    (rows, [field, values]) => rows.flatMap((row) => values.map((value) => ({ ...row, [field]: value }))),
    [{}],
  );
  return combinations.map((varied) => {
    const method = openLoopMethod(trajectories, { ...given, ...varied } as CacheOptions);
    const errors = trajectories.trajectories.flatMap((trajectory) =>
      [...openLoop(method, trajectory, trajectories.positions)].flatMap(({ step, full, forecast }) =>
        full ? [] : errorsAt(trajectory, forecast, step),
      ),
    );
    return {
      varied,
      settings: method.settings,
      fullSteps: method.full.filter(Boolean).length,
      relativeError: errors.length > 0 ? spreadOf(errors) : undefined,
    };
  });
}
