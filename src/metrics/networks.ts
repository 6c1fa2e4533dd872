import type { Planes } from "../images/index.js";
import type { HostTensor } from "../runtime/engine.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import type { Checkpoint } from "../weights/index.js";

/** What the networks of metrics run on. */
export interface NetworkContext {
  readonly sessions: Sessions;
  /** `Platform.kept` */
  readonly keep: (checkpoint: Checkpoint) => Promise<Checkpoint>;
}

/** Planes of one size as a batch, [images, channels, height, width]. */
export function batchOf(planes: readonly Planes[]): HostTensor {
  const [first] = planes as readonly [Planes];
  const data = new Float32Array(planes.length * first.data.length);
  for (const [i, plane] of planes.entries()) data.set(plane.data, i * first.data.length);
  return { dtype: "float32", dims: [planes.length, ...first.dims], data };
}

/** Outputs of one run, each as one row for each image. */
export async function runRows<Output extends string>(
  network: Network,
  feeds: Readonly<Record<string, HostTensor>>,
  outputs: readonly Output[],
): Promise<Readonly<Record<Output, Float32Array[]>>> {
  const result = await network.run({ feeds, fetch: outputs });
  const rows = outputs.map((output) => [output, rowsOf(result.outputs[output] as HostTensor)] as const);
  return Object.fromEntries(rows) as Record<Output, Float32Array[]>;
}

/** [rows, ...] by its first axis. */
export function rowsOf({ dims: [rows = 0], data }: HostTensor): Float32Array[] {
  const width = data.length / rows;
  return Array.from({ length: rows }, (_, i) => (data as Float32Array).slice(i * width, (i + 1) * width));
}
