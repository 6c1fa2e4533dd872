import { z } from "zod";
import { FemoError } from "../errors.js";
import { finalSigmasTypes, solverTypes } from "./dpm-solver.js";
import { predictionTypes } from "./prediction.js";
import type { SchedulerConfig } from "./scheduler.js";
import { betaSchedules, trainingChainDefaults } from "./training-chain.js";

/** Schedulers that keep their training chain under the keys read here; a flow-matching one, say, does not. */
const readableClasses = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"] as const;

const beta = z.number().gt(0).lt(1);

/** The keys that every scheduler has, each by its name here in snake case. */
const shared = z.object({
  num_train_timesteps: z.int().min(1),
  beta_start: beta,
  beta_end: beta,
  beta_schedule: z.enum(betaSchedules),
  trained_betas: z.array(beta).nullable(),
  rescale_betas_zero_snr: z.boolean(),
  prediction_type: z.enum(predictionTypes),
  timestep_spacing: z.enum(["leading", "trailing", "linspace"]),
  steps_offset: z.int().min(0),
});

const ddimSettings = z
  .object({
    ...shared.shape,
    clip_sample: z.boolean(),
    clip_sample_range: z.number().gt(0),
    set_alpha_to_one: z.boolean(),
  })
  .partial();

const dpmSolverSettings = z
  .object({
    ...shared.shape,
    solver_order: z.literal([1, 2]),
    solver_type: z.enum(solverTypes),
    lower_order_final: z.boolean(),
    euler_at_final: z.boolean(),
    final_sigmas_type: z.enum(finalSigmasTypes),
    use_karras_sigmas: z.boolean(),
  })
  .partial();

/** The keys that must be what they are by default, for want of more. */
const fixed = z.object({
  thresholding: z.literal(false),
  algorithm_type: z.literal("dpmsolver++"),
  lambda_min_clipped: z.literal(Number.NEGATIVE_INFINITY),
  use_lu_lambdas: z.literal(false),
  use_exponential_sigmas: z.literal(false),
  use_beta_sigmas: z.literal(false),
  use_flow_sigmas: z.literal(false),
});

/** All of them, for what any one must hold in whichever file it stands. */
const schema = z
  .object({ _class_name: z.enum(readableClasses), ...ddimSettings.shape, ...dpmSolverSettings.shape, ...fixed.shape })
  .partial();

/**
 * Sampler and settings from the parsed content of a diffusers `scheduler_config.json`.
 *
 * Reads DDIM and DPM-Solver++ configs; those of DDPM and PNDM too, as `DDIMScheduler.from_pretrained` would. Keys that the
 * sampler does not have are ignored, keys that are not there stay away: each sampler has defaults of its own for them.
 *
 * @param json the parsed file, not its text
 * @throws FemoError E_CONFIG if a key holds a value that is not supported (key, found and allowed are named), such as
 *   `thresholding: true`, or if the file belongs to another kind of scheduler
 */
export function schedulerFromConfig(json: unknown): SchedulerConfig {
  const result = schema.safeParse(json);
  if (!result.success) throw new FemoError("E_CONFIG", describe(result.error, json), { cause: result.error });
  const { _class_name: className, trained_betas: betas, num_train_timesteps: T } = result.data;
  const timesteps = T ?? trainingChainDefaults.numTrainTimesteps;
  if (betas && betas.length !== timesteps) {
    throw new FemoError(
      "E_CONFIG",
      `scheduler config: trained_betas: found ${betas.length} values, allowed: as many as num_train_timesteps, ${timesteps}.`,
    );
  }
  return className === "DPMSolverMultistepScheduler"
    ? { sampler: "dpm-solver++", ...inCamelCase(dpmSolverSettings.parse(result.data)) }
    : { sampler: "ddim", ...inCamelCase(ddimSettings.parse(result.data)) };
}

type CamelCase<Key> = Key extends `${infer Word}_${infer Rest}` ? `${Word}${Capitalize<CamelCase<Rest>>}` : Key;
type InCamelCase<T> = { [Key in keyof T as CamelCase<Key>]: Exclude<T[Key], undefined> };

const inCamelCase = <T extends object>(snake: T): InCamelCase<T> =>
  Object.fromEntries(
    Object.entries(snake).map(([key, value]) => [
      key.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
      value,
    ]),
  ) as InCamelCase<T>;

/** One line per unsupported key: where, what was found, what is allowed. */
function describe(error: z.ZodError, json: unknown): string {
  const lines = error.issues.map((issue) => {
    const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)[key], json);
    const key = issue.path.length === 0 ? "scheduler config" : `scheduler config: ${issue.path.join(".")}`;
    return `${key}: found ${show(found)}, allowed: ${allowed(issue)}.`;
  });
  return lines.join("\n");
}

function allowed(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return issue.values.map(show).join(", ");
    case "invalid_type":
      return issue.expected === "object" ? "an object" : `a value of type ${issue.expected}`;
    case "too_small":
      return `a number ${issue.inclusive ? "from" : "above"} ${issue.minimum}`;
    case "too_big":
      return `a number ${issue.inclusive ? "up to" : "below"} ${issue.maximum}`;
    default:
      return issue.message;
  }
}

/** As JSON, with -Infinity as Python writes it there. */
const show = (value: unknown): string => (typeof value === "number" ? String(value) : JSON.stringify(value));
