import * as z from "zod/mini";
import { roundHalfEven } from "../samplers/index.js";
import type { Cut, Region } from "../tracing/index.js";
import { blocksOf } from "./blocks.js";
import { type Forecaster, fora } from "./forecasts/index.js";
import { type At, common, type Method, type ModelFacts, type Policy, type TokenChoice } from "./method.js";
import { everyInterval } from "./schedules/index.js";

/** How the share of tokens goes with step and layer: the factors of ToCa's code for each of its models, or none. */
export const ratioSchedules = ["ddim50", "ddpm250", "flux", "flat"] as const;
/** When full steps come: ToCa's for DiT, denser towards the end, or every so many, as its code for FLUX has it. */
export const intervalSchedules = ["toca", "constant"] as const;

/** Fields of the methods that compute chosen tokens between full steps. */
export const tokenwise = {
  ...common,
  /** N: a full step every so many steps, before the schedule's factors. */
  interval: z.int().check(z.minimum(1)),
  /** Full steps at the start, where the interval is constant. */
  firstEnhance: z.int().check(z.minimum(1)),
  intervalSchedule: z.enum(intervalSchedules),
  /** Share of the tokens that are computed at the steps between, before the schedule's factors. */
  ratio: z.number().check(z.minimum(0), z.maximum(1)),
  ratioSchedule: z.enum(ratioSchedules),
  /** lambda 3: what a token's score gains while it is not computed, over a whole interval. */
  freshWeight: z.number().check(z.nonnegative()),
  /** The best token of every cell has its score once more, times this. */
  bonus: z.number().check(z.nonnegative()),
  /** Side of a cell in tokens; it divides rows and columns. */
  cell: z.int().check(z.minimum(1)),
  /** As the code of ToCa and DuCa does on DiT: steps that are full in their first layer alone. Printed costs include them. */
  compat: z.boolean(),
  /** Report how far off what is kept was at every full step; costs one small product per feature. */
  measure: z.boolean(),
};
type Tokenwise = z.infer<z.ZodMiniObject<typeof tokenwise>>;

/** ToCa's settings for DiT-XL/2 and 50 DDIM steps. */
export const tokenwiseDefaults = {
  interval: 3,
  firstEnhance: 3,
  intervalSchedule: "toca",
  ratio: 0.07,
  ratioSchedule: "ddim50",
  freshWeight: 0.25,
  bonus: 0.6,
  cell: 2,
  compat: false,
  measure: true,
} as const;

/**
 * Attention is kept from the last full step, and of every MLP chosen tokens are computed anew.
 * @param skips whether every other of the steps between computes no block at all
 */
export function tokenwiseMethod(settings: Tokenwise, model: ModelFacts, skips: boolean): Method {
  const { interval, freshWeight, bonus, measure } = settings;
  return {
    cuts: cutsOf(settings, model, skips),
    forecaster: fora() as Forecaster,
    measure,
    firstDifference: 0,
    tokens: { ratio: ratioOf(settings, model), ageWeight: freshWeight / interval, bonus },
    policy: policyOf(settings, skips),
  };
}

function cutsOf({ cell, compat }: Tokenwise, model: ModelFacts, skips: boolean): Record<string, Cut> {
  const module: Region = { level: "module" };
  // Where attention lies inside what is computed token by token, it is kept on its own.
  const kept: Region = model.levels.includes("attention") ? { any: [module, { level: "attention" }] } : module;
  const blocks = blocksOf(model);
  const end = blocks.before(blocks.count);
  const pass = skips ? { pass: end } : {};
  const partial = { forecast: kept, tokens: module, cell, ...pass };
  const renew = {
    renew: { level: "module", within: { chain: blocks.firstChain, blocks: [0, 1] } },
    scores: true,
  } as const;
  return {
    full: { capture: kept, scores: true, ...pass },
    partial,
    ...(skips && { skip: { from: end } }),
    ...(compat && { first: { ...partial, ...renew } }),
    ...(compat && skips && { firstSkip: { from: end, ...renew } }),
  };
}

/** The interval in force, and the steps since the last full one. */
interface Cycle {
  readonly interval: number;
  readonly since: number;
}

function policyOf({ interval, firstEnhance, intervalSchedule, compat }: Tokenwise, skips: boolean): Policy<Cycle> {
  const constant = everyInterval({ interval, firstEnhance });
  /** Every other step between; the first of them where the interval is constant. */
  const isSkipped = (s: number, cycle: Cycle): boolean =>
    skips && (intervalSchedule === "constant" ? cycle.since % 2 === 0 : (s % cycle.interval) % 2 === 0);

  const decide = (cycle: Cycle, { step, numSteps, due }: At): { memory: Cycle; kind: string } => {
    const s = numSteps - 1 - step; // counts down
    const between = { memory: { ...cycle, since: cycle.since + 1 }, kind: isSkipped(s, cycle) ? "skip" : "partial" };
    const isFull = intervalSchedule === "constant" ? constant.isFull(step) : step === 0 || s % cycle.interval === 0;
    if (!isFull && !due) return between;
    const next = { interval: intervalSchedule === "constant" ? interval : intervalAt(interval, s, numSteps), since: 0 };
    // The code asks in every layer, and the first one has changed the interval by then.
    const isFirstAlone = compat && !due && step > 0 && intervalSchedule === "toca" && s % next.interval !== 0;
    if (!isFirstAlone) return { memory: next, kind: "full" };
    return { memory: { ...next, since: cycle.since + 1 }, kind: isSkipped(s, next) ? "firstSkip" : "first" };
  };
  return { looks: [], start: () => ({ interval, since: 0 }), decide };
}

/** N over a factor from 0.6 early to 1.4 late; 2 in the fifth of the run that is the most sensitive. */
function intervalAt(interval: number, s: number, numSteps: number): number {
  if (interval === 1) return 1;
  if (s >= 0.2 * numSteps && s < 0.4 * numSteps) return 2;
  return roundHalfEven(Math.fround(interval / Math.fround(1.4 - (0.8 * s) / numSteps)));
}

function ratioOf({ ratio, ratioSchedule }: Tokenwise, { chains }: ModelFacts): TokenChoice["ratio"] {
  return ({ step, numSteps }, { chain, block }) => {
    const s = numSteps - 1 - step; // counts down
    const layer = block / Math.max(1, (chains[chain] as number) - 1); // 0 .. 1
    const ofMlp = 2.5;
    switch (ratioSchedule) {
      case "ddim50":
        return ratio * (0.8 + 0.4 * layer) * (3 - (4 * s) / numSteps) * ofMlp;
      case "ddpm250":
        return ratio * (1.8 - 1.6 * layer) * (1.4 - (0.8 * s) / numSteps) * ofMlp;
      case "flux": // blocks count from 0 in either chain, and each goes by the same 27
        return ratio * (1.5 - block / 27) * (chain === "single_transformer_blocks" ? 1.6 : 0.4);
      case "flat":
        return ratio;
    }
  };
}
