import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";

/** Single files in the names of the releases, with what is in them by diffusers' and transformers' names. */
export const originals = fileURLToPath(new URL("../goldens/flux-original", import.meta.url));
export const openOriginal = (file: string): Promise<Checkpoint> => openCheckpoint(nodeFolder(originals), file);

export interface Expected {
  readonly config: Readonly<Record<string, unknown>>;
  /** By name: the shape, and the start of the SHA-256 of the values in float32. */
  readonly tensors: Readonly<Record<string, [shape: number[], sum: string]>>;
}
export const expectedOriginals = JSON.parse(readFileSync(`${originals}/expected.json`, "utf8")) as Readonly<
  Record<string, Expected>
>;

export interface FloatTensor {
  readonly name: string;
  readonly dtype: "float32";
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** All weights in float32, those that are computed too. */
export async function inFloat32(checkpoint: Checkpoint): Promise<FloatTensor[]> {
  const tensors: FloatTensor[] = [];
  for (const { name, shape } of checkpoint.tensors()) {
    tensors.push({ name, dtype: "float32", shape, values: await checkpoint.readTensor(name) });
  }
  return tensors;
}

/** As `Expected.tensors`. */
export const sumsOf = (tensors: readonly FloatTensor[]): Expected["tensors"] =>
  Object.fromEntries(
    tensors
      .map(({ name, shape, values }): [string, [number[], string]] => {
        const sum = createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex").slice(0, 16);
        return [name, [[...shape], sum]];
      })
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
