import { z } from "zod";
import { FemoError } from "../errors.js";
import { type DdimSchedulerConfig, ddimDefaults } from "./ddim.js";

/** Schedulers that keep their training chain under the keys read here; a flow-matching one, say, does not. */
const readableClasses = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler"] as const;

const beta = z.number().gt(0).lt(1);

const schema = z.object({
  _class_name: z.enum(readableClasses).optional(),
  num_train_timesteps: z.int().min(1).default(ddimDefaults.numTrainTimesteps),
  beta_start: beta.default(ddimDefaults.betaStart),
  beta_end: beta.default(ddimDefaults.betaEnd),
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2"]).default(ddimDefaults.betaSchedule),
  trained_betas: z.array(beta).nullable().default(null),
  clip_sample: z.boolean().default(ddimDefaults.clipSample),
  clip_sample_range: z.number().gt(0).default(ddimDefaults.clipSampleRange),
  set_alpha_to_one: z.boolean().default(ddimDefaults.setAlphaToOne),
  steps_offset: z.int().min(0).default(ddimDefaults.stepsOffset),
  prediction_type: z.enum(["epsilon", "v_prediction", "sample"]).default(ddimDefaults.predictionType),
  thresholding: z.literal(false).default(false),
  timestep_spacing: z.enum(["leading", "trailing", "linspace"]).default("leading"),
  rescale_betas_zero_snr: z.boolean().default(ddimDefaults.rescaleBetasZeroSnr),
});

/**
 * DDIM settings from the parsed content of a diffusers `scheduler_config.json`.
 *
 * Reads what `DDIMScheduler.from_pretrained` would: the configs of DDPM and PNDM too, with DDIM's defaults for what
 * they lack. Keys that DDIM does not have are ignored.
 *
 * @param json the parsed file, not its text
 * @throws FemoError E_CONFIG if a key DDIM has holds a value that is not supported (key, found and allowed are named),
 *   such as `thresholding: true`, or if the file belongs to another kind of scheduler
 */
export function schedulerFromConfig(json: unknown): DdimSchedulerConfig {
  const result = schema.safeParse(json);
  if (!result.success) throw new FemoError("E_CONFIG", describe(result.error, json), { cause: result.error });
  const c = result.data;
  if (c.trained_betas !== null && c.trained_betas.length !== c.num_train_timesteps) {
    throw new FemoError(
      "E_CONFIG",
      `scheduler config: trained_betas: found ${c.trained_betas.length} values, allowed: as many as ` +
        `num_train_timesteps, ${c.num_train_timesteps}.`,
    );
  }
  return {
    numTrainTimesteps: c.num_train_timesteps,
    betaStart: c.beta_start,
    betaEnd: c.beta_end,
    betaSchedule: c.beta_schedule,
    trainedBetas: c.trained_betas,
    clipSample: c.clip_sample,
    clipSampleRange: c.clip_sample_range,
    setAlphaToOne: c.set_alpha_to_one,
    stepsOffset: c.steps_offset,
    predictionType: c.prediction_type,
    timestepSpacing: c.timestep_spacing,
    rescaleBetasZeroSnr: c.rescale_betas_zero_snr,
  };
}

/** One line per unsupported key: where, what was found, what is allowed. */
function describe(error: z.ZodError, json: unknown): string {
  const lines = error.issues.map((issue) => {
    const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)[key], json);
    const key = issue.path.length === 0 ? "scheduler config" : `scheduler config: ${issue.path.join(".")}`;
    return `${key}: found ${JSON.stringify(found)}, allowed: ${allowed(issue)}.`;
  });
  return lines.join("\n");
}

function allowed(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(", ");
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
