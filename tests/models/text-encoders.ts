import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";

const folder = fileURLToPath(new URL("../goldens/text-encoders", import.meta.url));

export const readJson = (path: string): unknown => JSON.parse(readFileSync(`${folder}/${path}`, "utf8"));

/** A text encoder in transformers' layout. */
export async function openTextEncoder(
  name: string,
  file = "model",
): Promise<{ json: unknown; checkpoint: Checkpoint }> {
  const checkpoint = await openCheckpoint(nodeFolder(folder), `${name}/${file}.safetensors`);
  return { json: readJson(`${name}/config.json`), checkpoint };
}

/** What transformers made of which tokens. */
export interface Encoded {
  readonly names: readonly string[];
  ids(tensor: string): Promise<number[][]>;
  values(tensor: string): Promise<{ dims: readonly number[]; data: Float32Array }>;
}

export async function openEncoded(name: string): Promise<Encoded> {
  const checkpoint = await openCheckpoint(nodeFolder(folder), `${name}/golden.safetensors`);
  return {
    names: checkpoint.names(),
    ids: async (tensor) => {
      const bytes = await checkpoint.readBytes(tensor);
      const all = Array.from(new BigInt64Array(bytes.slice().buffer), Number);
      const [rows = 0, tokens = 0] = checkpoint.get(tensor)?.shape ?? [];
      return Array.from({ length: rows }, (_, i) => all.slice(i * tokens, (i + 1) * tokens));
    },
    values: async (tensor) => ({
      dims: checkpoint.get(tensor)?.shape ?? [],
      data: await checkpoint.readTensor(tensor),
    }),
  };
}
