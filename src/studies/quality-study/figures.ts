import type { CacheOptions } from "../../methods/index.js";
import { type AblationRow, ablation, errorOverHorizon, forecastPaths } from "../trajectories/figures.js";
import { forecastingMethods } from "../trajectories/open-loop.js";
import type { Trajectories } from "../trajectories/record.js";

/** A point of a line, and the range around it. */
export interface FigurePoint {
  readonly x: number;
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
  /** Drawn as a mark. */
  readonly mark?: boolean;
}

/** A figure of lines: plain data. */
export interface LineFigure {
  readonly title: string;
  readonly note: string;
  readonly x: string;
  readonly y: string;
  readonly logarithmic?: boolean;
  readonly lines: readonly {
    readonly label: string;
    readonly points: readonly FigurePoint[];
    readonly dashed?: boolean;
  }[];
}

const INTERVALS = [3, 5, 7, 9] as const;
const BETAS = Array.from({ length: 25 }, (_, i) => Math.round(100 * (-0.6 + 0.05 * i)) / 100);
const GAMMAS = [0, 0.002, 0.007, 0.02, 0.05, 0.1, 0.2] as const;
const DELTAS = [0.01, 0.02, 0.05, 0.1, 0.2] as const;
/** At which forecasts are laid over a path, so that they can be told from it. */
const SHOWN_INTERVAL = 7;

/**
 * The figures that the FEMO paper draws of features, of recorded ones: a path in the plane in which it varies most with
 * every method's forecasts (its figures 1, 2 and 10), how errors grow with the distance from the last full step, and what each
 * setting does to them (its appendix tables, E1 and E2).
 */
export function trajectoryFigures(trajectories: Trajectories): LineFigure[] {
  const { level, trajectories: paths } = trajectories;
  const at = `at ${level}, ${paths.length} ${paths.length === 1 ? "image" : "images"}`;
  const atInterval = (interval: number) =>
    forecastingMethods.map((method) => ({ method, granularity: level, interval }) as CacheOptions);
  const plane = forecastPaths(trajectories, { methods: atInterval(SHOWN_INTERVAL) });
  const percent = plane.shares.map((share) => Math.round(100 * share));
  const horizon = errorOverHorizon(trajectories, {
    methods: atInterval(5),
    horizon: Math.max(1, Math.min(12, Math.floor(trajectories.timesteps.length / 2) - 1)),
  });
  const femo = { method: "femo", granularity: level } as CacheOptions;
  const byBeta = ablation(trajectories, femo, { interval: INTERVALS, beta: BETAS });
  const byOrder = ablation(trajectories, femo, { order: [1, 2, 3], interval: [2, 3, 4, 5, 6, 7, 8, 9, 10] });
  const adapted = ablation(trajectories, { method: "adaptedFemo", granularity: level } as CacheOptions, {
    interval: [5],
    gamma: GAMMAS,
    delta: DELTAS,
  });
  return [
    {
      title: `The path of a feature ${at}`,
      note:
        `The ${plane.site} of one image over all steps in the plane of its first two principal components, which has ${percent[0]} and ${percent[1]} % ` +
        `of its variance. Dots are full steps, every ${SHOWN_INTERVAL}; between them each method forecasts from true features alone.`,
      ...{ x: "First principal component", y: "Second" },
      lines: [
        { label: "Computed", points: plane.truth.map(({ x, y }) => ({ x, y })), dashed: true },
        ...plane.methods.map(({ title, path }) => ({
          label: title,
          points: path.map(({ x, y, full }) => ({ x, y, mark: full })),
        })),
      ],
    },
    {
      title: `How errors grow ${at}`,
      note: "|F − F̂| / |F| over the distance from the last full step, at interval 5: median, and the quartiles around it.",
      ...{ x: "Steps since the last full one", y: "Relative error", logarithmic: true },
      lines: horizon.map(({ title, distances }) => ({
        label: title,
        points: distances.map(({ distance, median, lowerQuartile, upperQuartile }) => ({
          ...{ x: distance, y: median, low: lowerQuartile, high: upperQuartile },
        })),
      })),
    },
    {
      title: `FEMO's beta ${at}`,
      note: "Mean relative error of all forecasts for each beta, at the model's order. Beta 0 is TaylorSeer.",
      ...{ x: "beta", y: "Relative error" },
      lines: linesOf(byBeta, "interval", "beta"),
    },
    {
      title: `FEMO's order and interval ${at}`,
      note: "Mean relative error of all forecasts.",
      ...{ x: "interval", y: "Relative error", logarithmic: true },
      lines: linesOf(byOrder, "order", "interval"),
    },
    {
      title: `Adapted-FEMO's gamma and delta ${at}`,
      note: "Mean relative error of all forecasts at interval 5.",
      ...{ x: "gamma", y: "Relative error" },
      lines: linesOf(adapted, "delta", "gamma"),
    },
  ];
}

/** Mean errors over one setting, a line for each value of another. */
const linesOf = (rows: readonly AblationRow[], line: string, x: string): LineFigure["lines"] =>
  [...new Set(rows.map(({ varied }) => varied[line]))].map((value) => ({
    label: `${line} ${value}`,
    points: rows.flatMap(({ varied, relativeError }) =>
      varied[line] === value && relativeError ? [{ x: varied[x] as number, y: relativeError.mean }] : [],
    ),
  }));
