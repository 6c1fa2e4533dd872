import { productsAnd } from "../../graph/index.js";
import { type CacheOptions, deepCache, methodTitle, taylorSeer } from "../../methods/index.js";
import { unet } from "../../models/unet.js";
import { sdxlBase } from "../../models/unet-config.js";
import { BATCH } from "../../tracing/index.js";
import { alignedText } from "../table.js";
import { type Counting, type Step, stepsOn } from "./steps.js";

/** Speed-ups in Table 2 of the paper, SDXL in 50 steps; order 1. */
const PRINTED = [
  { method: "deepCache", interval: 2, speed: 1.34 },
  { method: "taylorSeer", interval: 2, speed: 1.5 },
  { method: "femo", interval: 2, speed: 1.48 },
  { method: "deepCache", interval: 7, speed: 1.71 },
  { method: "taylorSeer", interval: 7, speed: 2.19 },
  { method: "femo", interval: 7, speed: 2.16 },
] as const;
const NUM_STEPS = 50;

/** What Table 2 may have run, since it says no level: where TaylorSeer and FeMo forecast, and which state DeepCache kept. */
export interface SpeedReading {
  /** Level of the forecasts, of a U-Net's. */
  readonly granularity: string;
  readonly cacheBranchId: number;
  /** Floating-point operations of a step between full ones over those of a full one, of the forecasts and of DeepCache. */
  readonly ratios: { readonly forecast: number; readonly deepCache: number };
  /** Share of the uncached time that is not the U-Net's, 0 to 1: the one number that is fitted, to all rows together. */
  readonly outside: number;
  readonly rows: readonly SpeedRow[];
  /** Root mean square of the relative differences of speed. */
  readonly error: number;
}

/** A speed-up of the table, and what a reading makes of it. */
export interface SpeedRow {
  readonly method: string;
  readonly interval: number;
  readonly printed: number;
  /** One over the share of time left, if time goes by operations. */
  readonly predicted: number;
}

const everything: Counting = { convention: productsAnd({}), counts: () => true };

/**
 * Readings of the FEMO paper's Table 2 (SDXL, whose levels, cuts and share of the U-Net it does not tell): all levels of the
 * project's U-Net with every DeepCache cut, each with the share of time outside the U-Net that fits the six printed
 * speed-ups best. Steps are counted from their graphs: products twice their multiply-adds, attention's included.
 * @param size height and width of the image in pixels, a multiple of 32
 * @returns of every level its best cut, from the closest reading to the furthest
 */
export function table2Readings(size: number): SpeedReading[] {
  const model = unet(sdxlBase);
  const stepsOf = stepsOn(model, { [BATCH]: 2, height: size / 8, width: size / 8, text: 77 });
  const flopsOf = (step: Step | undefined): number => step?.flops(everything) ?? 0;
  const ratio = (cache: CacheOptions): number => {
    const [full, between] = stepsOf({ cache, numSteps: 2 });
    return flopsOf(between) / flopsOf(full);
  };
  const cuts = model.levels.filter((level) => level.startsWith("deep."));
  const kept = cuts.map((_, cacheBranchId) => ratio(deepCache({ interval: 2, cacheBranchId })));
  return model.levels
    .map((granularity) => {
      const forecast = ratio(taylorSeer({ interval: 2, order: 1, firstEnhance: 1, granularity }));
      return kept
        .map((deep, cacheBranchId) => ({ granularity, cacheBranchId, ...fitted({ forecast, deepCache: deep }) }))
        .reduce(closer);
    })
    .toSorted((a, b) => a.error - b.error);
}

const closer = (a: SpeedReading, b: SpeedReading): SpeedReading => (b.error < a.error ? b : a);

function fitted(ratios: SpeedReading["ratios"]): Pick<SpeedReading, "ratios" | "outside" | "rows" | "error"> {
  const at = (outside: number) => {
    const rows = PRINTED.map(({ method, interval, speed }) => {
      const full = Math.ceil(NUM_STEPS / interval) / NUM_STEPS;
      const between = method === "deepCache" ? ratios.deepCache : ratios.forecast;
      const predicted = 1 / (outside + (1 - outside) * (full + (1 - full) * between));
      return { method: methodTitle(method), interval, printed: speed, predicted };
    });
    const squares = rows.map(({ printed, predicted }) => (predicted / printed - 1) ** 2);
    return { ratios, outside, rows, error: Math.sqrt(squares.reduce((a, b) => a + b, 0) / rows.length) };
  };
  const shares = Array.from({ length: 501 }, (_, i) => at(i / 1000));
  return shares.reduce((a, b) => (b.error < a.error ? b : a));
}

/** The readings as aligned plain text, beside the printed speed-ups. */
export function speedReadingsText(size: number, readings: readonly SpeedReading[]): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const heading = [
    ...["Forecast at", "its step", "DeepCache at", "its step", "outside"],
    ...PRINTED.map(({ method, interval }) => `${methodTitle(method)} N=${interval}`),
    "error",
  ];
  const printed = ["printed", "", "", "", "", ...PRINTED.map(({ speed }) => speed.toFixed(2)), ""];
  const lines = readings.map(({ granularity, cacheBranchId, ratios, outside, rows, error }) => [
    ...[granularity, percent(ratios.forecast), `deep.${cacheBranchId}`, percent(ratios.deepCache), percent(outside)],
    ...rows.map(({ predicted }) => predicted.toFixed(2)),
    percent(error),
  ]);
  return [
    `Table 2: SDXL at ${size}x${size}, 50 steps; what its speed-ups can be read as`,
    alignedText([heading, printed, ...lines]),
    "Counted: operations of a step between full ones, of a full one; products with 2 a multiply-add, attention's among them.",
    "Outside: the share of time that is not the U-Net's, fitted to the six speed-ups; error: root mean square, relative.",
  ].join("\n");
}
