import { FemoError } from "../errors.js";
import { describeValue } from "../weights/text.js";
import { devices } from "./device.js";
import type { PretrainedOptions } from "./diffusion-pipeline.js";
import { modelDtypes } from "./dtype.js";

/** What plain JavaScript may pass: why a value fits each option, and what it should be. */
const optionTypes: {
  readonly [K in keyof Required<PretrainedOptions>]: readonly [fits: (value: unknown) => boolean, expected: string];
} = {
  variant: [isText, 'the infix of file names, such as "fp16"'],
  revision: [isText, "a branch, tag or commit"],
  cacheDir: [isText, "the path of a folder"],
  device: [isOneOf(devices), `one of ${devices.join(", ")}, for this build runs on the CPU only`],
  threads: [isCount, "a positive integer"],
  dtype: [isOneOf(modelDtypes), modelDtypes.join(" or ")],
  vae: [isText, "a folder, or owner/name on the Hub"],
  heads: [isCount, "a positive integer"],
  signal: [isSignal, "an AbortSignal"],
  onProgress: [(value) => typeof value === "function", "a function"],
};

/**
 * Checks what `DiffusionPipeline.fromPretrained` was given; options that are undefined count as absent.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkPretrained(pathOrName: unknown, options: unknown): PretrainedOptions {
  if (!isText(pathOrName)) {
    throw new FemoError(
      "E_OPTION",
      'the model: expected its name, such as "avatars-dit", the path of a folder or file, or owner/name on the Hub; found ' +
        describeValue(pathOrName),
    );
  }
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new FemoError("E_OPTION", `options: expected an object, found ${describeValue(options)}`);
  }
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(optionTypes, name)) {
      const known = Object.keys(optionTypes).join(", ");
      throw new FemoError("E_OPTION", `${name}: there is no such option; there are ${known}`);
    }
    const [fits, expected] = optionTypes[name as keyof PretrainedOptions];
    if (value !== undefined && !fits(value)) {
      throw new FemoError("E_OPTION", `${name}: expected ${expected}, found ${describeValue(value)}`);
    }
  }
  return options;
}

function isText(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

/** Also one of another realm, such as a test runner's. */
function isSignal(value: unknown): boolean {
  const signal = value as Partial<AbortSignal> | null;
  return (
    typeof signal === "object" && signal !== null && typeof signal.aborted === "boolean" && !!signal.throwIfAborted
  );
}

function isOneOf(values: readonly unknown[]): (value: unknown) => boolean {
  return (value) => values.includes(value);
}
