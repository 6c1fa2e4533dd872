import { Checkpoint, memoryByteSource } from "../../src/weights/index.js";
import { safetensors } from "./helpers.js";

export interface Entry {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/** A tensor; without values it counts up in steps that float32 holds exactly. */
export const entry = (shape: readonly number[], values?: ArrayLike<number>): Entry => ({
  shape,
  values: values ?? Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => (i + 1) / 8),
});

let files = 0;

/** A safetensors file of float32 tensors in memory, with a name of its own. */
export async function floatFile(
  tensors: Readonly<Record<string, Entry>>,
  metadata?: Readonly<Record<string, string>>,
): Promise<Checkpoint> {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  const data: number[] = [];
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    const begin = 4 * data.length;
    data.push(...Array.from(values));
    header[name] = { dtype: "F32", shape, data_offsets: [begin, 4 * data.length] };
  }
  const name = `lora-${++files}.safetensors`;
  const bytes = safetensors(header, new Uint8Array(Float32Array.from(data).buffer));
  return Checkpoint.fromSources(name, [memoryByteSource(name, bytes)]);
}

export const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer);

/** The same bytes by other names. */
export const renamed = (checkpoint: Checkpoint, names: ReadonlyMap<string, string>): Checkpoint =>
  checkpoint.withTensors(
    checkpoint.tensors().map((tensor) => ({ ...tensor, name: names.get(tensor.name) ?? tensor.name })),
  );
