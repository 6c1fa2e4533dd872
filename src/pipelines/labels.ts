import { FemoError } from "../errors.js";

/** Class names of a model: the ids from 0 on, each with its synonyms. */
export type ClassNames = ReadonlyMap<number, readonly string[]>;

/** Names of classes as `model_index.json` has them: synonyms are separated by commas. */
export const labelNames = (id2label: Readonly<Record<number, string>> = {}): ClassNames =>
  new Map(Object.entries(id2label).map(([id, names]) => [Number(id), names.split(",").map((name) => name.trim())]));

/** All classes of a model; one without a name is called by its number. */
export const allClasses = (count: number, names: ClassNames = new Map()): ClassNames =>
  new Map(Array.from({ length: count }, (_, id) => [id, names.get(id) ?? [String(id)]]));

/**
 * The class a user means: its number, or one of its names. A name as it is written goes before one that differs by "-" or
 * "_" for " ", and that before one in another case.
 * @throws FemoError E_OPTION naming the nearest classes, or the numbers of those that have the same name
 */
export function classId(label: string | number, classes: ClassNames): number {
  if (typeof label === "number") {
    if (Number.isInteger(label) && label >= 0 && label < classes.size) return label;
    throw new FemoError(
      "E_OPTION",
      `classLabels: expected a class from 0 to ${classes.size - 1} or its name, found ${label}`,
    );
  }
  for (const read of [trimmed, spaced, lower]) {
    const ids = [...classes].filter(([, names]) => names.some((name) => read(name) === read(label))).map(([id]) => id);
    if (ids.length === 1) return ids[0] as number;
    if (ids.length > 1) throw ambiguous(label, ids, classes);
  }
  if (/^\d+$/.test(trimmed(label))) return classId(Number(label), classes);
  const shown = label.length > 80 ? `${label.slice(0, 80)}…` : label;
  const near = [...classes]
    .flatMap(([, synonyms]) => synonyms)
    .map((name) => ({ name, distance: editDistance(lower(shown), lower(name)) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => `"${name}"`);
  throw new FemoError("E_OPTION", `classLabels: there is no class "${shown}". Nearest: ${near.join(", ")}`);
}

function ambiguous(label: string, ids: readonly number[], classes: ClassNames): FemoError {
  const those = ids.map((id) => `${id} (${classes.get(id)?.join(", ")})`).join(" and ");
  return new FemoError("E_OPTION", `classLabels: "${label}" is the name of several classes, ${those}: pass the number`);
}

/** What a class is called: the first of its names. */
export const className = (id: number, classes: ClassNames): string => classes.get(id)?.[0] ?? String(id);

const trimmed = (name: string): string => name.trim();
const spaced = (name: string): string => trimmed(name).replaceAll(/[\s_-]+/g, " ");
const lower = (name: string): string => spaced(name).toLowerCase();

/** Levenshtein distance; a label inside a name counts as near. */
function editDistance(a: string, b: string): number {
  if (a !== "" && b.includes(a)) return 0.5;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
