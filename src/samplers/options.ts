import { FemoError } from "../errors.js";

/** Demands something of one option at a time; what does not hold is E_OPTION with name, what was expected and found. */
export const demandOf =
  <Options extends object>(options: Options) =>
  (holds: boolean, name: keyof Options & string, expected: string): void => {
    if (!holds) throw new FemoError("E_OPTION", `${name}: expected ${expected}, found ${String(options[name])}.`);
  };

export const oneOf = (allowed: readonly string[]): string => `one of ${allowed.join(", ")}`;
