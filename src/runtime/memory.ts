import type * as Ort from "onnxruntime-common";
import { FemoError } from "../errors.js";
import { sizeOf } from "../graph/shape.js";
import type { HeldDtype, HostTensor } from "./engine.js";
import { ARRAYS } from "./host-tensor.js";

/** Where tensors live that stay with the engine. What it gives belongs to it, and is freed by it. */
export interface Memory {
  /** @param old what was held before in its place, which it may take over */
  zeros(dtype: HeldDtype, dims: readonly number[], old: Ort.Tensor | undefined): Promise<Ort.Tensor>;
  /** What a run is given to write an output into, in the place of a held tensor; null if a new one has to come of it. */
  target(held: Ort.Tensor): Ort.Tensor | null;
  /** Keeps a tensor that a run gave, or that was made on the host. */
  keep(tensor: Ort.Tensor): Promise<Ort.Tensor>;
  /** A held tensor for a run to read, as one of other dimensions if they are given. */
  view(held: Ort.Tensor, dims?: readonly number[]): Ort.Tensor;
  /** The elements of a tensor that is held, or that a run gave. @param name in messages */
  read(name: string, tensor: Ort.Tensor): Promise<HostTensor>;
  free(held: Ort.Tensor): void;
}

/**
 * The memory of the host.
 * @param fillsOutputs whether a run writes into tensors that it is given as outputs; onnxruntime-web gives them back as they were
 */
export function hostMemory(ort: typeof Ort, fillsOutputs: boolean): Memory {
  return {
    async zeros(dtype, dims, old) {
      if (old?.location === "cpu" && old.type === dtype && old.dims.join() === dims.join()) {
        (old.data as Float32Array | Uint16Array).fill(0);
        return old;
      }
      old?.dispose();
      return new ort.Tensor(dtype, new ARRAYS[dtype](sizeOf(dims)) as Float32Array, dims);
    },
    target: (held) => (fillsOutputs ? held : null),
    keep: async (tensor) => tensor,
    view: (held, dims) => (dims ? held.reshape(dims) : held),
    read: (name, tensor) => hostTensor(name, tensor),
    free: (held) => held.dispose(),
  };
}

/** A tensor's elements, fetched by the runtime from its device if it is on one. @param name in messages */
export async function hostTensor(name: string, tensor: Ort.Tensor): Promise<HostTensor> {
  const { type, dims } = tensor;
  const data = await tensor.getData();
  if (type === "float32" && data instanceof Float32Array) return { dtype: type, dims, data };
  // Where the language has an array for it, the runtime uses that.
  if (type === "float16" && "buffer" in data) {
    return { dtype: type, dims, data: new Uint16Array(data.buffer, data.byteOffset, data.length) };
  }
  if (type === "int64" && data instanceof BigInt64Array) return { dtype: type, dims, data };
  throw new FemoError("E_RUNTIME", `${name}: expected float32, float16 or int64, found ${type}. Cast it in the graph.`);
}
