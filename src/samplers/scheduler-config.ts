import { z } from "zod";
import { FemoError } from "../errors.js";
import { inCamelCase, type SamplerDefinition, sharedKeys } from "./definition.js";
import { type SamplerName, type SchedulerConfig, samplerTable } from "./table.js";
import { trainingChainDefaults } from "./training-chain.js";

/** Schedulers that keep their training chain under the keys read here; a flow-matching one, say, does not. */
const readableClasses = samplerTable.flatMap(({ classes }) => classes);

/** The keys of all samplers, for what any one must hold in whichever file it stands. */
const schema = z
  .object({
    _class_name: z.enum(readableClasses as [string]),
    ...sharedKeys,
    ...Object.assign({}, ...samplerTable.map(({ keys, fixed }) => ({ ...keys, ...fixed }))),
  })
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
  const [first] = samplerTable;
  const {
    name,
    keys,
    fromKeys = (read) => read,
  }: SamplerDefinition<SamplerName> = samplerTable.find(({ classes }) => classes.includes(className ?? "")) ?? first;
  const own = Object.entries(result.data).filter(([key]) => Object.hasOwn(keys, key));
  const settings = Object.fromEntries(own.map(([key, value]) => [inCamelCase(key), value]));
  return { ...fromKeys(settings), sampler: name } as SchedulerConfig;
}

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
