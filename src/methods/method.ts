import * as z from "zod/mini";
import { type Cut, type Model, type Place, type StateDtype, stateDtypes } from "../tracing/index.js";
import type { Forecaster } from "./forecasts/index.js";

/** Where a decision is made. */
export interface At {
  /** 0 .. numSteps - 1, in sampling order. */
  readonly step: number;
  readonly numSteps: number;
  /** Whether the step has to be full whatever else the policy goes by: the guard's word. */
  readonly due: boolean;
}

/** A number for each image that a policy looks at before it decides: how far a tensor has moved. */
export interface Look {
  /** Runs before every step. Where it ends, a kind of step may begin (`from`). */
  readonly cut: Cut;
  /** Which of its outputs: a mark that it gives, a stream at which it ends, or the first feature that it captures. */
  readonly of: { readonly mark: string } | { readonly stream: string } | "captured";
  /** Since when: the step before, or the last one that computed everything. */
  readonly against: "last step" | "last full";
  /** |now - then| / |then|, of sums of magnitudes or of roots of sums of squares, over all rows of the image. */
  readonly measure: "l1" | "l2";
}

/** What a step turned out to be, for one image. */
export interface Outcome {
  readonly kind: string;
  /** What `decide` saw. */
  readonly seen: readonly (number | undefined)[];
  /** |F - F^| / |F| of the forecast that a step which computed everything would have had, if it was measured. */
  readonly forecastError: number | undefined;
  /** Whether all that the network gave is a finite number. */
  readonly finite: boolean;
}

/**
 * Which kind of step each image gets. `Memory` belongs to one image of one request; it is passed in and out and never
 * changed in place.
 */
export interface Policy<Memory = unknown> {
  /** Nothing, for a schedule that is known beforehand. */
  readonly looks: readonly Look[];
  /** @param image its index in the request */
  start(image: number): Memory;
  /**
   * @param seen a number for each look; undefined while there is nothing to compare with
   * @returns the kind of the step, a name among the method's cuts
   */
  decide(
    memory: Memory,
    at: At,
    seen: readonly (number | undefined)[],
  ): { readonly memory: Memory; readonly kind: string };
  /**
   * Judges a step that has run.
   * @returns `redo`: the kind as which it is to run again, once. A step that captures cannot: E_GRAPH
   */
  judge?(memory: Memory, at: At, outcome: Outcome): { readonly memory: Memory; readonly redo?: string };
}

/**
 * No graph runs: x0, the image that the sampler takes the model to mean, is forecast from that of steps that computed it.
 * To users it is a level above the model's own.
 */
export const X0 = "x0";

/** How many tokens steps compute that compute some of them, and by what they are chosen. */
export interface TokenChoice {
  /**
   * Share of a feature's tokens that a step computes; what is not within 0 .. 1 is brought there.
   * @param place the block in which the feature lies
   */
  ratio(at: Pick<At, "step" | "numSteps">, place: Place): number;
  /** What every such step since a token was computed adds to its score; the attention that it got adds 0 to 1. */
  readonly ageWeight: number;
  /** The best of each cell of the grid has its score once more, times this. */
  readonly bonus: number;
}

/** How many tokens a share of them is: floor(ratio * tokens), in single precision as in the code of ToCa. */
export const tokenCount = (ratio: number, tokens: number): number =>
  Math.floor(Math.fround(Math.fround(Math.min(1, Math.max(0, ratio))) * tokens));

/** A caching method as it runs: which graphs there are, what is kept, and who decides. */
export interface Method {
  /**
   * The kinds of step by name; "full" is one that computes everything. One that captures a region feeds the state that
   * one that forecasts it, or part of it, reads.
   */
  readonly cuts: Readonly<Record<string, Cut | typeof X0>>;
  /** What is captured and forecast goes by; undefined if nothing is. */
  readonly forecaster?: Forecaster;
  /** What the engine keeps features in. Default: float32. */
  readonly stateDtype?: StateDtype;
  /** Of methods with cuts that compute chosen tokens. */
  readonly tokens?: TokenChoice;
  /**
   * Once a full step has shown where the images were heading, the forecast steps before it are walked again, their
   * forecasts now between two known values. x0 of the full step stays what it was.
   */
  readonly hindsight?: boolean;
  /** The guard: after a full step whose forecast would have been further off than this, relative, the next is full too. */
  readonly errorBound?: number;
  /** Report the forecast error of every full step. A forecaster that adapts measures in any case. */
  readonly measure: boolean;
  /** Differences may be formed at full steps after this one: TaylorSeer's gate. */
  readonly firstDifference: number;
  /** Refuses a number of steps that the settings are not for. @throws FemoError E_OPTION */
  readonly checkSteps?: (numSteps: number) => void;
  readonly policy: Policy;
}

/** The field by which a method's cost is traded for quality, and the range in which that is of use: the larger the cheaper. */
export interface Knob {
  /** An interval is a whole number. */
  readonly field: "interval" | "threshold";
  readonly from: number;
  readonly to: number;
}

/** A method as users choose it: one file, and one line in the table of methods. */
export interface MethodDefinition<Name extends string = string, Schema extends z.ZodMiniType = z.ZodMiniType> {
  readonly name: Name;
  /** As its authors write it. */
  readonly title: string;
  /** Its settings with every choice made; strict, with the name under `method`. */
  readonly schema: Schema;
  /** What is left out, unless the model has presets of its own: the paper's settings for DiT where it has some. */
  readonly defaults: Omit<z.infer<Schema>, "method">;
  /** Undefined if nothing in the settings trades cost for quality. */
  readonly knob?: Knob;
  /** @param model for which it is to run */
  build(settings: z.infer<Schema>, model: ModelFacts): Method;
}

/** What a method may go by of a model. */
export type ModelFacts = Pick<Model, "levels" | "chains" | "marks">;

/** Keeps the types of a definition. */
export const defineMethod = <const Name extends string, Schema extends z.ZodMiniType>(
  definition: MethodDefinition<Name, Schema>,
): MethodDefinition<Name, Schema> => definition;

/** A field that lists something. */
export const listOf = <T extends z.ZodMiniType>(of: T) => z.readonly(z.array(of).check(z.minLength(1)));

/** Fields of every method. */
export const common = {
  /** The guard: |F - F^| / |F| of a full step's forecast beyond which the next step is full too. Default: no guard. */
  errorBound: z.optional(z.number().check(z.positive())),
  /** What kept features are; half precision takes half of the memory. x0 stays in float32. Default: "float32". */
  stateDtype: z.optional(z.enum(stateDtypes)),
};

export type Common = z.infer<z.ZodMiniObject<typeof common>>;

/** What is undefined counts as left out. */
export type Choice<T> = { [K in keyof T]?: T[K] | undefined };

/** A method as a value that users write: `cache: femo({ interval: 5 })`. The model's preset fills in what is left out. */
export const methodValue =
  <Name extends string, Schema extends z.ZodMiniType>({ name }: MethodDefinition<Name, Schema>) =>
  (
    fields: Choice<Omit<z.infer<Schema>, "method">> = {},
  ): { method: Name } & Choice<Omit<z.infer<Schema>, "method">> => ({
    ...fields,
    method: name,
  });

/**
 * The kind of every step, if that is known beforehand; undefined for a method that looks before it decides.
 * @param numSteps of the sampler
 */
export function plannedKinds({ policy, errorBound }: Method, numSteps: number): string[] | undefined {
  if (policy.looks.length > 0 || policy.judge || errorBound !== undefined) return undefined;
  let memory = policy.start(0);
  return Array.from({ length: numSteps }, (_, step) => {
    const decision = policy.decide(memory, { step, numSteps, due: false }, []);
    memory = decision.memory;
    return decision.kind;
  });
}
