import { FemoError } from "../errors.js";
import type { Checkpoint } from "../weights/index.js";
import { formatDims, listSome, quote } from "../weights/text.js";

/** How one model is told in a single file, alone or as a part of a file of several. */
export interface OriginalPart {
  /** In messages, such as "a FLUX.1 transformer". */
  readonly what: string;
  /** A tensor that it has and others have not. */
  readonly marker: string;
  /** What may stand before its names; the empty prefix, of a file of its own, is tried first. */
  readonly prefixes: readonly string[];
}

/** The prefix under which a file has a part; undefined if it does not have it. */
export const prefixOf = (checkpoint: Checkpoint, { marker, prefixes }: OriginalPart): string | undefined =>
  ["", ...prefixes].find((prefix) => checkpoint.get(prefix + marker));

/** True if a file has the part. */
export const hasPart = (checkpoint: Checkpoint, part: OriginalPart): boolean =>
  prefixOf(checkpoint, part) !== undefined;

/**
 * The tensors of a part, by their names without prefix: all of a file of its own, of a file of several those of the prefix.
 * @throws FemoError E_WEIGHT if the file does not have it
 */
export function partOf(checkpoint: Checkpoint, part: OriginalPart): Checkpoint {
  const prefix = prefixOf(checkpoint, part);
  if (prefix === undefined) {
    const names = checkpoint.names();
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: expected ${part.what} under the names of its release, with a tensor ${quote(part.marker)}. ` +
        `In the layout of diffusers it is opened by its folder. Found ${names.length} tensors:${listSome(names.map(quote), 5)}`,
    );
  }
  const own = checkpoint.tensors().filter(({ name }) => name.startsWith(prefix));
  return checkpoint.withTensors(own.map((tensor) => ({ ...tensor, name: tensor.name.slice(prefix.length) })));
}

/**
 * The shape of a tensor from which a config is inferred.
 * @throws FemoError E_WEIGHT if it is not there or has another number of axes
 */
export function shapeOf(checkpoint: Checkpoint, name: string, axes: number, what: string): readonly number[] {
  const shape = checkpoint.get(name)?.shape;
  if (shape?.length === axes) return shape;
  throw new FemoError(
    "E_WEIGHT",
    `${checkpoint.name}: expected ${what} with a tensor ${quote(name)} of ${axes} axes, found ` +
      `${shape ? formatDims(shape) : "none"}. Is the file whole, and of this model?`,
  );
}

/** How many members a list of layers has by the greatest number after its name, such as "double_blocks". */
export function countOf(checkpoint: Checkpoint, list: string): number {
  const start = `${list}.`;
  return checkpoint.names().reduce((count, name) => {
    const digits = name.startsWith(start) ? /^\d{1,9}(?=\.)/.exec(name.slice(start.length)) : null;
    return digits ? Math.max(count, 1 + Number(digits[0])) : count;
  }, 0);
}
