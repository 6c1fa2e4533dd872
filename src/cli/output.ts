/** Writes a text and the end of its last line to standard output. */
export const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** Writes what a user should know, a line each, to standard error. */
export function warn(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`femo: ${warning}\n`);
}

/** JSON; what JSON does not know is a string: the digits of a bigint, "Infinity", "NaN". */
export const jsonText = (value: unknown, space?: number): string =>
  JSON.stringify(
    value,
    (_, part: unknown) =>
      typeof part === "bigint" || (typeof part === "number" && !Number.isFinite(part)) ? String(part) : part,
    space,
  );
