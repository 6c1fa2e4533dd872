import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { ChosenSteps } from "./definition.js";
import { demandOf, oneOf } from "./options.js";
import { type FlowPredictionType, flowPrediction } from "./prediction.js";
import { checkSigmas, type SigmaConfig, sigmaConversion, sigmaDefaults } from "./sigmas.js";
import { isTrainTimesteps, linspace, MOST_TRAIN_TIMESTEPS, type TimestepSpacing } from "./timesteps.js";

/**
 * How noise levels are spaced before they are shifted: "trailing" is 1, 1 − 1/n … 1/n, what the pipelines of FLUX pass;
 * "linspace" is the sampler's own where a pipeline passes none.
 */
export type FlowSpacing = (typeof flowSpacings)[number];
export const flowSpacings = ["trailing", "linspace"] as const;

/** By what dynamic shifting pulls levels to the noise: e^μ or μ. */
export type TimeShiftType = (typeof timeShiftTypes)[number];
export const timeShiftTypes = ["exponential", "linear"] as const;

/** The schedule of a flow: diffusers' `FlowMatchEulerDiscreteScheduler` config in camelCase, with its defaults. */
export interface FlowConfig extends SigmaConfig {
  readonly predictionType: FlowPredictionType;
  /** T, by which noise levels are multiplied to be timesteps, 1 … 100 000. Default 1000. */
  readonly numTrainTimesteps?: number;
  /** σ becomes shift·σ/(1 + (shift − 1)·σ), unless shifting is dynamic. Above 0, default 1. */
  readonly shift?: number;
  /** Shift the more the larger the image is: σ becomes a/(a + 1/σ − 1), a by timeShiftType of μ. Default false. */
  readonly useDynamicShifting?: boolean;
  /** μ of an image of baseImageSeqLen tokens. Default 0.5. */
  readonly baseShift?: number;
  /** μ of an image of maxImageSeqLen tokens; between and beyond it is on a line. Default 1.15. */
  readonly maxShift?: number;
  /** Default 256. */
  readonly baseImageSeqLen?: number;
  /** Default 4096. */
  readonly maxImageSeqLen?: number;
  /** Default "exponential". */
  readonly timeShiftType?: TimeShiftType;
  /** Stretch the shifted levels so that the last one is this, in 0 … 1. 0 and null, the default: leave them. */
  readonly shiftTerminal?: number | null;
  /** Default "linspace". */
  readonly timestepSpacing?: TimestepSpacing;
}

export const flowDefaults: Required<FlowConfig> = {
  predictionType: flowPrediction,
  numTrainTimesteps: 1000,
  shift: 1,
  useDynamicShifting: false,
  baseShift: 0.5,
  maxShift: 1.15,
  baseImageSeqLen: 256,
  maxImageSeqLen: 4096,
  timeShiftType: "exponential",
  shiftTerminal: null,
  ...sigmaDefaults,
  timestepSpacing: "linspace",
};

/** The keys of a scheduler's config that any sampler of a flow reads. */
export const flowKeys = {
  num_train_timesteps: z.int().check(z.minimum(1), z.maximum(MOST_TRAIN_TIMESTEPS)),
  use_dynamic_shifting: z.boolean(),
  base_shift: z.number(),
  max_shift: z.number(),
  base_image_seq_len: z.int().check(z.minimum(1)),
  max_image_seq_len: z.int().check(z.minimum(1)),
};

export type FlowOptions = Required<FlowConfig> & ChosenSteps;

/** Settings and what a request chooses: its spacing goes before levels of Karras and the others. */
export const flowOptions = (settings: FlowConfig, chosen: ChosenSteps): FlowOptions => ({
  ...flowDefaults,
  ...settings,
  ...chosen,
  ...(chosen.timestepSpacing !== undefined && sigmaDefaults),
});

/** Noise levels of a flow. */
export interface FlowSchedule {
  /** As diffusers' schedulers have them, σ·T.  [n] */
  readonly timesteps: readonly number[];
  /** σ of each step and where the last one lands, 0.  [n + 1] */
  readonly sigmas: readonly number[];
  /** How they were chosen, for reports. */
  readonly spacing: string;
}

/** Levels before shifting, in the arithmetic that goes on with them. */
export interface BaseLevels {
  readonly sigmas: readonly number[];
  /** To the nearest number of that arithmetic. */
  readonly round: (value: number) => number;
  /** Timesteps are cut off to whole numbers. */
  readonly whole?: boolean;
}

/**
 * The schedule of `FlowMatchEulerDiscreteScheduler.set_timesteps`, to the bit: lists in float32, the scheduler's own levels
 * in float64 until they are done.
 *
 * @param own "linspace", which samplers space differently
 * @throws FemoError E_OPTION if a value is outside its range, if shifting is dynamic and imageTokens is not given, or if
 *   levels do not fall from at most 1 to above 0
 */
export function flowSchedule(options: FlowOptions, own: (options: FlowOptions) => BaseLevels): FlowSchedule {
  check(options);
  const { numTrainTimesteps: T, timestepSpacing } = options;
  const base = options.sigmas
    ? listed(options.sigmas)
    : timestepSpacing === "trailing"
      ? trailing(options)
      : own(options);
  const levels = stretched(shifted(base.sigmas, base.round, options), base.round, options);
  const conversion = sigmaConversion(options);
  const exact = conversion?.between(levels[0] as number, levels.at(-1) as number, levels.length) ?? levels;
  const sigmas = exact.map(Math.fround);
  checkFalling(sigmas, TOP);
  return {
    timesteps: base.whole ? exact.map((sigma) => Math.trunc(sigma * T)) : sigmas.map((sigma) => Math.fround(sigma * T)),
    sigmas: [...sigmas, 0],
    spacing: conversion?.name ?? (options.sigmas ? "given" : timestepSpacing),
  };
}

/** What pipelines divide timesteps by before a model of a flow sees them, whatever T is. */
export const MODEL_TIME = 1000;

/** Timesteps as the model is told them.  [n] */
export const modelTimes = ({ timesteps }: FlowSchedule): number[] => timesteps.map((t) => Math.fround(t / MODEL_TIME));

const listed = (sigmas: readonly number[]): BaseLevels => ({ sigmas: sigmas.map(Math.fround), round: Math.fround });

const trailing = ({ numInferenceSteps: n }: FlowOptions): BaseLevels => listed(linspace(1, 1 / n, n));

/** σ pulled to the noise, by the image's size or always alike. */
function shifted(sigmas: readonly number[], round: (value: number) => number, options: FlowOptions): number[] {
  if (options.useDynamicShifting) {
    const a = round(dynamicShift(options));
    return sigmas.map((sigma) => round(a / round(a + round(round(1 / sigma) - 1))));
  }
  return sigmas.map((sigma) => shiftedBy(options.shift, sigma, round));
}

/** shift·σ/(1 + (shift − 1)·σ), which leaves 0 and 1 where they are. */
export const shiftedBy = (shift: number, sigma: number, round: (value: number) => number): number =>
  round(round(round(shift) * sigma) / round(1 + round(round(shift - 1) * sigma)));

/** a of dynamic shifting: e^μ or μ, which is on a line over the tokens. */
function dynamicShift(options: FlowOptions): number {
  const { imageTokens, baseShift, maxShift, baseImageSeqLen, maxImageSeqLen, timeShiftType } = options;
  const slope = (maxShift - baseShift) / (maxImageSeqLen - baseImageSeqLen);
  const mu = (imageTokens as number) * slope + (baseShift - slope * baseImageSeqLen);
  return timeShiftType === "exponential" ? Math.exp(mu) : mu;
}

/** 1 − σ, scaled so that the last σ is `shiftTerminal`. */
function stretched(sigmas: number[], round: (value: number) => number, { shiftTerminal }: FlowOptions): number[] {
  if (!shiftTerminal) return sigmas;
  const signals = sigmas.map((sigma) => round(1 - sigma));
  const scale = round((signals.at(-1) as number) / round(1 - shiftTerminal));
  return signals.map((signal) => round(1 - round(signal / scale)));
}

function check(options: FlowOptions): void {
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing, sigmas, shift, shiftTerminal } = options;
  const demand = demandOf(options);
  demand(isTrainTimesteps(T), "numTrainTimesteps", `an integer from 1 to ${MOST_TRAIN_TIMESTEPS}`);
  demand(Number.isInteger(n) && n >= 1 && n <= T, "numInferenceSteps", `an integer from 1 to ${T} (numTrainTimesteps)`);
  demand(
    flowSpacings.some((one) => one === timestepSpacing),
    "timestepSpacing",
    `${oneOf(flowSpacings)}, as the model is a flow`,
  );
  demand(Number.isFinite(shift) && shift > 0, "shift", "a positive number");
  demand(
    shiftTerminal === null || (shiftTerminal >= 0 && shiftTerminal < 1),
    "shiftTerminal",
    "null or a number from 0 to below 1",
  );
  demand(timeShiftTypes.includes(options.timeShiftType), "timeShiftType", oneOf(timeShiftTypes));
  checkTokens(options);
  checkSigmas(options);
  if (sigmas !== undefined) checkList(sigmas, n);
}

function checkTokens(options: FlowOptions): void {
  const { imageTokens, useDynamicShifting, baseShift, maxShift, baseImageSeqLen, maxImageSeqLen } = options;
  if (!useDynamicShifting) return;
  const demand = demandOf(options);
  demand(
    imageTokens !== undefined && Number.isInteger(imageTokens) && imageTokens >= 1,
    "imageTokens",
    "the number of the image's tokens, as the model shifts its noise levels by it (useDynamicShifting)",
  );
  demand(Number.isFinite(baseShift), "baseShift", "a finite number");
  demand(Number.isFinite(maxShift), "maxShift", "a finite number");
  demand(maxImageSeqLen !== baseImageSeqLen, "maxImageSeqLen", "another number than baseImageSeqLen");
}

function checkList(sigmas: readonly number[], n: number): void {
  if (!Array.isArray(sigmas) || sigmas.length !== n) {
    const found = Array.isArray(sigmas) ? sigmas.length : String(sigmas);
    throw new FemoError("E_OPTION", `sigmas: expected a list of ${n} numbers (numInferenceSteps), found ${found}.`);
  }
  checkFalling(sigmas, 1);
}

/** Rounding in float32 brings the first level above 1, the more so the further a shift pulls away from noise. */
const TOP = 1.001;

/**
 * @param top what the first may be at most
 * @throws FemoError E_OPTION if levels do not fall from there to above 0
 */
function checkFalling(sigmas: readonly number[], top: number): void {
  const bad = sigmas.findIndex((sigma, i) => {
    const before = sigmas[i - 1];
    return !(sigma > 0 && (before === undefined ? sigma <= top : sigma < before));
  });
  if (bad === -1) return;
  throw new FemoError(
    "E_OPTION",
    `sigmas: expected noise levels from at most 1, each below the one before, to above 0, found ${sigmas[bad]} at step ${bad}` +
      `${bad > 0 ? ` after ${sigmas[bad - 1]}` : ""}: use other sigmas, fewer steps, or another shift.`,
  );
}
