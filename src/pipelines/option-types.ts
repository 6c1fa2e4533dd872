import { FemoError } from "../errors.js";

/** Whether a value is of an option's type, and that type in words. */
export type OptionType = readonly [(value: unknown) => boolean, string];
export type OptionTypes<T> = { readonly [K in keyof Required<T>]: OptionType };

/**
 * What plain JavaScript may pass: the options must be an object, each by a name there is and of its type. Those that are
 * undefined are as if left out.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkTypes(options: unknown, types: Readonly<Record<string, OptionType>>, required?: string): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    const wanted = required === undefined ? "an object" : `an object with ${required}`;
    throw new FemoError("E_OPTION", `options: expected ${wanted}, found ${describe(options)}`);
  }
  for (const name of new Set([...(required === undefined ? [] : [required]), ...Object.keys(options)])) {
    const value = (options as Record<string, unknown>)[name];
    const type = Object.hasOwn(types, name) ? types[name] : undefined;
    if (!type) {
      throw new FemoError("E_OPTION", `${name}: there is no such option; there are ${Object.keys(types).join(", ")}`);
    }
    const [fits, expected] = type;
    if (value === undefined && name !== required) continue;
    if (!fits(value)) throw new FemoError("E_OPTION", `${name}: expected ${expected}, found ${describe(value)}`);
  }
}

export const isNumber = (value: unknown): boolean => typeof value === "number";
export const isString = (value: unknown): boolean => typeof value === "string";
export const isFunction = (value: unknown): boolean => typeof value === "function";

/** By their tags and members, as `instanceof` fails for what another realm made: a vm context, a frame. */
export const isFloat32Array = (value: unknown): boolean => ArrayBuffer.isView(value) && tagOf(value) === "Float32Array";
export const isAbortSignal = (value: unknown): boolean =>
  typeof value === "object" &&
  typeof (value as AbortSignal | null)?.aborted === "boolean" &&
  typeof (value as AbortSignal).throwIfAborted === "function";

const tagOf = (value: object): string => Object.prototype.toString.call(value).slice(8, -1);

/** A value in a message: as JSON if it is short and has one, else its kind. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "object":
      return value === null
        ? "null"
        : Array.isArray(value)
          ? `a list of ${value.length}`
          : `an object (${tagOf(value)})`;
    case "function":
      return "a function";
    case "bigint":
      return `${value}n`;
    case "string":
      return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
    default:
      return String(value);
  }
}

/** @throws FemoError E_OPTION if the value is infinite or not a number */
export function checkFinite(name: string, value: number): void {
  if (!Number.isFinite(value)) throw new FemoError("E_OPTION", `${name}: expected a finite number, found ${value}`);
}

/** @throws FemoError E_OPTION if the value is not an integer from `min` to `max` */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new FemoError("E_OPTION", `${name}: expected an integer from ${min} to ${max}, found ${value}`);
  }
}
