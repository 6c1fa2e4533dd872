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
 * The class a user means: its number, or one of its names, in any case and with "-" for " ".
 * @throws FemoError E_OPTION naming the nearest classes
 */
export function classId(label: string | number, classes: ClassNames): number {
  if (typeof label === "number") {
    if (Number.isInteger(label) && label >= 0 && label < classes.size) return label;
    throw new FemoError(
      "E_OPTION",
      `classLabels: expected a class from 0 to ${classes.size - 1} or its name, found ${label}`,
    );
  }
  const wanted = normalise(label);
  for (const [id, synonyms] of classes) if (synonyms.some((name) => normalise(name) === wanted)) return id;
  if (/^\d+$/.test(wanted)) return classId(Number(wanted), classes);
  const near = [...classes]
    .flatMap(([, synonyms]) => synonyms)
    .map((name) => ({ name, distance: editDistance(wanted, normalise(name)) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => `"${name}"`);
  throw new FemoError("E_OPTION", `classLabels: there is no class "${label}". Nearest: ${near.join(", ")}`);
}

/** What a class is called: the first of its names. */
export const className = (id: number, classes: ClassNames): string => classes.get(id)?.[0] ?? String(id);

const normalise = (name: string): string =>
  name
    .trim()
    .toLowerCase()
    .replaceAll(/[\s_-]+/g, " ");

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
