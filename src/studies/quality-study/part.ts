import * as z from "zod/mini";
import { FemoError } from "../../errors.js";
import { safeParse, schemaIssues } from "../../schema-issues.js";
import { base64 } from "../base64.js";

/** Values of a measure, one for each image; null is that of equal images, which JSON has no number for. */
export type PartValues = Readonly<Record<string, readonly (number | null)[]>>;

/** What was measured on a part of a study's images, drawn in one way: plain data, of which all else is made. */
export interface StudyPart {
  readonly cell: string;
  /** The first of its images, and how many there are. */
  readonly first: number;
  readonly count: number;
  /** Against the uncached images, and those of the converged sampler. */
  readonly reference: PartValues;
  readonly converged: PartValues;
  readonly scores: PartValues;
  /** Float32, little-endian, in base64, [count, width] for each layer. */
  readonly features: Readonly<Record<string, string>>;
  readonly cost: PartCost;
}

/** What the images of a part took. */
export interface PartCost {
  /** Floating-point operations of all. */
  readonly flops: number;
  /** Runs of the whole network, over the images. */
  readonly fullSteps: readonly number[];
  /** For conditioning and steps in the runtime, milliseconds. */
  readonly durationMs: number;
  /** What the uncached images would have taken at that moment, by some steps that were run just before. */
  readonly referenceMs: number;
  readonly stateBytes: number;
}

const values = z.record(z.string(), z.array(z.nullable(z.number())));
const count = z.number().check(z.nonnegative());
const schema = z.strictObject({
  cell: z.string(),
  first: z.int().check(z.nonnegative()),
  count: z.int().check(z.positive()),
  reference: values,
  converged: values,
  scores: values,
  features: z.record(z.string(), z.string()),
  cost: z.strictObject({
    flops: count,
    fullSteps: z.array(count),
    durationMs: count,
    referenceMs: count,
    stateBytes: count,
  }),
});

/** @throws FemoError E_CONFIG if it is no part */
export function partFromJson(json: unknown, file: string): StudyPart {
  const parsed = safeParse(schema, json);
  if (parsed.success) {
    const { count, reference, converged, scores } = parsed.data;
    const lengths = [reference, converged, scores].flatMap((one) => Object.values(one)).map(({ length }) => length);
    if (lengths.every((length) => length === count)) return parsed.data;
  }
  const issues = parsed.success ? ["a measure has not a value for each image"] : schemaIssues(parsed.error, "the file");
  throw new FemoError(
    "E_CONFIG",
    `${file}: not a part of a study: ${issues.join("; ")}. Remove it: it is measured again`,
  );
}

/** Of Infinity, what JSON keeps. */
export const toPartValues = (measures: Readonly<Record<string, readonly number[]>>): PartValues =>
  Object.fromEntries(
    Object.entries(measures).map(([name, all]) => [name, all.map((value) => (Number.isFinite(value) ? value : null))]),
  );

/** Rows as `StudyPart.features` has them. */
export function packRows(rows: readonly Float32Array[]): string {
  const width = rows[0]?.length ?? 0;
  const view = new DataView(new ArrayBuffer(4 * rows.length * width));
  for (const [i, row] of rows.entries()) {
    for (const [j, value] of row.entries()) view.setFloat32(4 * (i * width + j), value, true);
  }
  return base64(new Uint8Array(view.buffer));
}

/** @throws FemoError E_CONFIG if the text is no such rows */
export function unpackRows(text: string, count: number): Float32Array[] {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const width = bytes.length / 4 / count;
  if (!Number.isInteger(width)) throw new FemoError("E_CONFIG", `features: expected rows of ${count} images`);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) =>
    Float32Array.from({ length: width }, (_, j) => view.getFloat32(4 * (i * width + j), true)),
  );
}
