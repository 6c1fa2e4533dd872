import { FemoError } from "../errors.js";
import { betaQuantile } from "./beta-quantile.js";
import { linspace } from "./timesteps.js";

/** Settings of noise levels that go otherwise from the first to the last; at most one is true. */
export interface SigmaConfig {
  /** Levels even in the seventh root (arXiv 2206.00364, eq. 5). Default false. */
  readonly useKarrasSigmas?: boolean;
  /** Or even in the logarithm. Default false. */
  readonly useExponentialSigmas?: boolean;
  /** Or as the quantiles of Beta(0.6, 0.6) (arXiv 2407.12173). Default false. */
  readonly useBetaSigmas?: boolean;
}

export const sigmaDefaults: Required<SigmaConfig> = {
  useKarrasSigmas: false,
  useExponentialSigmas: false,
  useBetaSigmas: false,
};

/** n levels from the first to the last, and how reports call them. */
export interface SigmaConversion {
  readonly name: "karras" | "exponential" | "beta";
  readonly between: (first: number, last: number, n: number) => number[];
}

/** The conversion that the settings choose; undefined if they leave the levels as they are. */
export function sigmaConversion(config: SigmaConfig): SigmaConversion | undefined {
  if (config.useKarrasSigmas) return { name: "karras", between: karras };
  if (config.useExponentialSigmas) return { name: "exponential", between: exponential };
  return config.useBetaSigmas ? { name: "beta", between: beta } : undefined;
}

const names = Object.keys(sigmaDefaults) as (keyof SigmaConfig)[];

/** @throws FemoError E_OPTION if two are chosen */
export function checkSigmas(config: SigmaConfig): void {
  const on = names.filter((name) => config[name]);
  if (on.length > 1) throw new FemoError("E_OPTION", `${on.join(", ")}: expected at most one of them to be true.`);
}

/**
 * Settings of a file, whose keys may also be null, which is false.
 * @throws FemoError E_CONFIG if it chooses two
 */
export function oneConversion(settings: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const on = names.filter((name) => settings[name]).map(inSnakeCase);
  if (on.length > 1) {
    throw new FemoError("E_CONFIG", `scheduler config: found ${on.join(" and ")}, allowed: one of them.`);
  }
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [key, names.some((name) => name === key) ? value === true : value]),
  );
}

const inSnakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function karras(first: number, last: number, n: number): number[] {
  const [from, to] = [first ** (1 / 7), last ** (1 / 7)];
  return linspace(0, 1, n).map((r) => (from + r * (to - from)) ** 7);
}

const exponential = (first: number, last: number, n: number): number[] =>
  linspace(Math.log(first), Math.log(last), n).map(Math.exp);

const beta = (first: number, last: number, n: number): number[] =>
  linspace(0, 1, n).map((r) => last + betaQuantile(1 - r, 0.6) * (first - last));

/** σ = noise/signal at each timestep of a chain, rising.  [T] */
export const chainSigmas = (alphaBar: Float64Array): number[] => Array.from(alphaBar, (a) => Math.sqrt((1 - a) / a));

/** The least ᾱ of float16, which diffusers' σ-schedulers put in place of none: λ would be −∞ and σ ∞. */
export const LEAST_ALPHA_BAR = 2 ** -24;

/** Where on the chain a level lies, a fraction between two timesteps by its logarithm; `levels` rise. */
export function timestepAt(levels: readonly number[], sigma: number): number {
  const above = levels.findIndex((level) => level > sigma);
  if (above === 0) return 0;
  if (above === -1) return levels.length - 1;
  const [low, high] = levels.slice(above - 1, above + 1).map(Math.log) as [number, number];
  return above - 1 + (Math.log(sigma) - low) / (high - low);
}

/** The level at a timestep, on the line between two where it is a fraction. */
export function sigmaAt(levels: readonly number[], t: number): number {
  const below = Math.min(Math.floor(t), levels.length - 1);
  const low = levels[below] as number;
  return t === below ? low : low + (t - below) * ((levels[below + 1] as number) - low);
}
