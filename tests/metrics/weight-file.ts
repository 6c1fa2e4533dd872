import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll } from "vitest";
import type { NetworkContext } from "../../src/metrics/networks.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { keptCheckpoint } from "../../src/platform/node/kept.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { hashTensor } from "./hash-weights.js";

/** A tensor whose values are offset + scale S(name). */
export interface HashedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly scale: number;
  readonly offset?: number;
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
/** sqrt(gain / fan-in): the fan-in is the product of all axes but the first. */
export const fanIn = (gain: number, shape: readonly number[]): number => Math.sqrt(gain / sizeOf(shape.slice(1)));

/** A folder of the tests of a file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "femo-metrics-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a safetensors file, tensor by tensor. */
export function writeHashed(path: string, tensors: readonly HashedTensor[]): void {
  let at = 0;
  const header = Object.fromEntries(
    tensors.map(({ name, shape }) => {
      const start = at;
      at += 4 * sizeOf(shape);
      return [name, { dtype: "F32", shape, data_offsets: [start, at] }];
    }),
  );
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(8 + text.length + ((8 - (text.length % 8)) % 8)).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(text, 8);
  mkdirSync(dirname(path), { recursive: true });
  const file = openSync(path, "w");
  try {
    writeSync(file, padded);
    for (const { name, shape, scale, offset } of tensors) {
      writeSync(file, new Uint8Array(hashTensor(name, sizeOf(shape), scale, offset).buffer));
    }
  } finally {
    closeSync(file);
  }
}

export async function hashedCheckpoint(
  folder: string,
  name: string,
  tensors: readonly HashedTensor[],
): Promise<Checkpoint> {
  writeHashed(join(folder, name), tensors);
  return openCheckpoint(nodeFolder(folder), name);
}

/** @param folder that keeps what is computed */
export const contextForTests = (engine: Engine, folder: string): NetworkContext => ({
  sessions: new Sessions(engine, 2 ** 32),
  keep: (checkpoint) => keptCheckpoint(checkpoint, { folder }),
});
