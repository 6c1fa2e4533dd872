import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse } from "../schema-issues.js";
import { inCamelCase, type SamplerDefinition, sharedKeys } from "./definition.js";
import { type SamplerName, type SchedulerConfig, samplerTable } from "./table.js";
import { trainingChainDefaults } from "./training-chain.js";

const chain = z.object({
  trained_betas: sharedKeys.trained_betas,
  num_train_timesteps: sharedKeys.num_train_timesteps,
});

/** Schedulers whose keys are read here. */
const readableClasses = [...new Set(samplerTable.flatMap(({ classes }) => classes))];

const schemaOf = ({ keys, fixed }: SamplerDefinition) =>
  z.partial(z.object({ ...keys, ...fixed, _class_name: z.enum(readableClasses as [string]) }));

/** The sampler of a config; the first one if it does not say. */
function definitionOf(json: unknown): SamplerDefinition<SamplerName> {
  const config = typeof json === "object" && json !== null ? (json as Readonly<Record<string, unknown>>) : {};
  const all: readonly SamplerDefinition<SamplerName>[] = samplerTable;
  const fits = ({ classes, isOwn = () => true }: SamplerDefinition) =>
    classes.some((name) => name === config._class_name) && isOwn(config);
  return all.findLast(fits) ?? samplerTable[0];
}

/**
 * Sampler and settings from the parsed content of a diffusers `scheduler_config.json`.
 *
 * Reads configs of the classes in the table of samplers. Keys that the class does not have are ignored, but those that carry
 * over to another sampler; keys that are not there stay away: each sampler has defaults of its own for them.
 *
 * @param json the parsed file, not its text
 * @throws FemoError E_CONFIG if a key holds a value that is not supported (key, found and allowed are named), such as
 *   `thresholding: true`, or if the file belongs to another kind of scheduler
 */
export function schedulerFromConfig(json: unknown): SchedulerConfig {
  const definition = definitionOf(json);
  const { name, keys, fromKeys = (read) => read } = definition;
  const result = safeParse(schemaOf(definition), json);
  if (!result.success) throw new FemoError("E_CONFIG", describe(result.error, json), { cause: result.error });
  const { trained_betas: betas, num_train_timesteps: T } = result.data as Partial<z.infer<typeof chain>>;
  const timesteps = T ?? trainingChainDefaults.numTrainTimesteps;
  if (betas && betas.length !== timesteps) {
    throw new FemoError(
      "E_CONFIG",
      `scheduler config: trained_betas: found ${betas.length} values, allowed: as many as num_train_timesteps, ${timesteps}.`,
    );
  }
  const own = Object.entries(result.data).filter(([key]) => Object.hasOwn(keys, key));
  const settings = Object.fromEntries(own.map(([key, value]) => [inCamelCase(key), value]));
  return { ...fromKeys(settings), sampler: name } as SchedulerConfig;
}

/** One line per unsupported key: where, what was found, what is allowed. */
function describe(error: z.core.$ZodError, json: unknown): string {
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
