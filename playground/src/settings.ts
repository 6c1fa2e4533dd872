import type { CacheOptions } from "femo";

/** All that says what to draw, and how. It goes into links and into PNGs. */
export interface Settings {
  prompt: string;
  seed: number;
  steps: number;
  guidance: number;
  method: Method;
  interval: number;
  warmup: number;
  order: number;
  beta: number;
  level: string;
  threshold: number;
  /** Of the network, where a fitted solver takes the place of the steps. */
  fullSteps: number;
}

export const defaults: Settings = {
  prompt: "",
  seed: 7,
  steps: 28,
  guidance: 3,
  method: "femo",
  interval: 4,
  warmup: 4,
  order: 2,
  beta: -0.2,
  level: "output",
  threshold: 0.2,
  fullSteps: 7,
};

export type Method = keyof typeof methods;

interface MethodText {
  readonly title: string;
  readonly help: string;
  /** The settings that it has. */
  readonly knobs: readonly (keyof Settings)[];
}

const placed = ["interval", "warmup", "level"] as const;

export const methods = {
  femo: {
    title: "FEMO",
    help: "Extends the path of the last computed steps, each change smoothed by a moving average.",
    knobs: [...placed, "order", "beta"],
  },
  hindsight: {
    title: "FEMO with hindsight",
    help: "Forecasts the finished picture, and walks cheap steps again once the next computed one is known.",
    knobs: ["interval"],
  },
  taylorSeer: {
    title: "TaylorSeer",
    help: "Extends the path by a polynomial through the last computed steps.",
    knobs: [...placed, "order"],
  },
  fora: { title: "FORA", help: "Uses the last computed step again, as it was.", knobs: placed },
  teaCache: {
    title: "TeaCache",
    help: "Watches how far the input moves, and computes when it has moved enough.",
    knobs: ["threshold"],
  },
  calibrated: {
    title: "Fitted solver",
    help: "Computes a few steps, where and with what weights was fitted to this model, and leaps from one to the next.",
    knobs: ["fullSteps"],
  },
  none: { title: "None", help: "Computes every step.", knobs: [] },
} as const satisfies Record<string, MethodText>;

interface Knob {
  readonly key: "interval" | "warmup" | "order" | "beta" | "threshold" | "steps" | "guidance" | "seed";
  readonly title: string;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  /** What its present value means. */
  readonly help: (value: number, settings: Settings) => string;
}

/** Sliders, in their order. */
export const knobs: readonly Knob[] = [
  {
    key: "interval",
    title: "Interval",
    min: 1,
    max: 12,
    step: 1,
    help: (n) =>
      n === 1
        ? "Every step is computed."
        : `One step in ${n} is computed, the ${n === 2 ? "other is" : `${n - 1} after it are`} forecast.`,
  },
  {
    key: "warmup",
    title: "Warm-up",
    min: 1,
    max: 8,
    step: 1,
    help: (n) =>
      n === 1
        ? "The first step alone is computed."
        : `The first ${n} steps are computed: there the picture is decided.`,
  },
  {
    key: "order",
    title: "Order",
    min: 1,
    max: 4,
    step: 1,
    help: (n) =>
      [
        "",
        "Straight on: a line.",
        "With the bend: a parabola.",
        "With its change too: a cubic.",
        "A quartic: bold, and easily thrown off.",
      ][n] ?? "",
  },
  {
    key: "beta",
    title: "Beta",
    min: -0.6,
    max: 0.6,
    step: 0.05,
    help: (x) =>
      x < 0
        ? "Negative: leans ahead of the last change."
        : x > 0
          ? "Positive: smooths, and lags behind."
          : "Zero: as TaylorSeer.",
  },
  {
    key: "threshold",
    title: "Threshold",
    min: 0.02,
    max: 1,
    step: 0.02,
    help: (x) => `A step is computed once its input has moved by ${Math.round(100 * x)} % in all.`,
  },
  {
    key: "steps",
    title: "Steps",
    min: 6,
    max: 50,
    step: 1,
    help: (n) =>
      n < 16 ? "Few steps: quick and rough." : n > 36 ? "Many steps: slow and exact." : "Enough for a clean picture.",
  },
  {
    key: "guidance",
    title: "Guidance",
    min: 1,
    max: 6,
    step: 0.5,
    help: (x) => (x <= 1 ? "Off: half the work, and looser pictures." : "How strictly it follows the prompt."),
  },
];

/** The cache as femo takes it. */
export function cacheOf({
  method,
  interval,
  warmup,
  order,
  beta,
  level,
  threshold,
  fullSteps,
}: Settings): CacheOptions {
  switch (method) {
    case "none":
      return "none";
    case "hindsight":
      return { method, interval };
    case "teaCache":
      return { method, threshold };
    case "calibrated":
      return { method, fullSteps };
    case "fora":
      return { method, interval, firstEnhance: warmup, granularity: level };
    case "taylorSeer":
      return { method, interval, firstEnhance: warmup, order, granularity: level };
    case "femo":
      return { method, interval, firstEnhance: warmup, order, beta, granularity: level };
  }
}

/** The steps that are walked; those of a fitted solver are its own. */
export const walkedSteps = ({ method, steps, fullSteps }: Settings): number =>
  method === "calibrated" ? fullSteps : steps;

/** In a few words, for the gallery. */
export const titleOf = (settings: Settings): string => {
  const { title, knobs } = methods[settings.method];
  const some = (knobs as readonly string[]).includes("interval") ? ` · every ${settings.interval}` : "";
  return `${title}${some} · ${walkedSteps(settings)} steps`;
};

/** Settings of a link or a PNG: what is unknown or out of range is left out. */
export function parseSettings(text: string | null | undefined): Partial<Settings> | undefined {
  let found: unknown;
  try {
    found = JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
  if (typeof found !== "object" || found === null) return undefined;
  const given = found as Record<string, unknown>;
  const settings: Record<string, unknown> = {};
  if (typeof given.prompt === "string") settings.prompt = given.prompt.slice(0, 2000);
  if (typeof given.level === "string" && /^[\w-]{1,20}$/.test(given.level)) settings.level = given.level;
  if (typeof given.method === "string" && Object.hasOwn(methods, given.method)) settings.method = given.method;
  if (Number.isSafeInteger(given.seed) && (given.seed as number) >= 0) settings.seed = given.seed;
  if (Number.isSafeInteger(given.fullSteps) && (given.fullSteps as number) >= 1) settings.fullSteps = given.fullSteps;
  for (const { key, min, max } of knobs) {
    const value = given[key];
    if (typeof value === "number" && value >= min && value <= max) settings[key] = value;
  }
  return settings as Partial<Settings>;
}

export const linkOf = (settings: Settings): string => {
  const url = new URL(location.href);
  url.hash = encodeURIComponent(JSON.stringify(settings));
  return url.href;
};

export const settingsOfLink = (): Partial<Settings> | undefined => {
  try {
    return parseSettings(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return undefined; // no link of ours
  }
};
