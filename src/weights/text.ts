/** A name from a file as it may stand in a message: quoted, control characters escaped, at most 120 characters. */
export function quote(name: string): string {
  return JSON.stringify(name.length <= 120 ? name : `${name.slice(0, 117)}...`);
}

/** A shape as `[3456, 1152]`; of more than 8 axes the first 8 and their number. */
export function formatDims(shape: readonly number[]): string {
  const dims = shape.length <= 8 ? shape.join(", ") : `${shape.slice(0, 8).join(", ")}, ... ${shape.length} axes`;
  return `[${dims}]`;
}

/** The first `limit` items, one per line and indented, and how many more there are. */
export function listSome(items: readonly string[], limit = 10): string {
  const lines = items.slice(0, limit).map((item) => `\n    ${item}`);
  if (items.length > limit) lines.push(`\n    ... and ${items.length - limit} more`);
  return lines.join("");
}

/** A JSON value as it may stand in a message: what it is, and its start. */
export function describeValue(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "[]" : `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
