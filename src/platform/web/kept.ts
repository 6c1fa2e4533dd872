import { FemoError } from "../../errors.js";
import { blobByteSource } from "../../weights/byte-source.js";
import { Checkpoint, type DerivedTensor, DTYPE_BITS, type TensorInfo } from "../../weights/index.js";
import { inTurn } from "../hub/in-turn.js";
import type { KeepOptions } from "../platform.js";
import { keyOf } from "./remote.js";
import { openStore, type Store } from "./store.js";

/** See `Platform.kept`: each tensor a blob of its own, so that what was made before a page was closed counts. */
export async function keptCheckpoint(checkpoint: Checkpoint, options: KeepOptions = {}): Promise<Checkpoint> {
  const derived = Array.from(checkpoint.derived(), ([name, tensor]) => ({ ...tensor, name }));
  if (derived.length === 0) return checkpoint;
  const files = [...new Set(derived.flatMap((tensor) => tensor.files))];
  const recipes = derived.map(({ name, dtype, shape, recipe }) => [name, dtype, shape, recipe]);
  const key = keyOf(JSON.stringify([files.map((file) => [file, checkpoint.fingerprint(file)]), recipes]));
  const blobs = await inTurn(key, options.signal, async () => makeAll(await openStore(), key, derived, options));
  const file = `/kept/${key}`;
  const blob = new Blob(blobs);
  let offset = 0;
  const tensors = derived.map(({ name, dtype, shape }, i): TensorInfo => {
    const byteLength = (blobs[i] as Blob).size;
    offset += byteLength;
    return { name, dtype, shape, file, offset: offset - byteLength, byteLength };
  });
  const open = async () => blobByteSource(file, blob, key);
  return checkpoint.withKept(
    Checkpoint.fromTensors(file, tensors, open, new Map([[file, { fingerprint: key, blob }]])),
  );
}

async function makeAll(
  store: Store,
  key: string,
  tensors: readonly DerivedTensor[],
  { signal, onProgress }: KeepOptions,
): Promise<Blob[]> {
  const bytesTotal = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const blobs: Blob[] = [];
  let bytesDone = 0;
  for (const [i, tensor] of tensors.entries()) {
    const place = `kept/${key}/${i}`;
    let blob = await store.get(place);
    if (blob?.size !== bytesOf(tensor)) {
      signal?.throwIfAborted();
      const tensorsTotal = tensors.length;
      onProgress?.({ tensor: tensors[i - 1]?.name, tensorsDone: i, tensorsTotal, bytesDone, bytesTotal });
      blob = await made(store, place, tensor);
      onProgress?.({
        tensor: tensor.name,
        tensorsDone: i + 1,
        tensorsTotal,
        bytesDone: bytesDone + blob.size,
        bytesTotal,
      });
    }
    blobs.push(blob);
    bytesDone += blob.size;
  }
  return blobs;
}

async function made(store: Store, place: string, tensor: DerivedTensor): Promise<Blob> {
  const bytes = await tensor.make();
  if (bytes.length !== bytesOf(tensor)) {
    throw new FemoError("E_WEIGHT", `${tensor.name}: expected ${bytesOf(tensor)} bytes, made ${bytes.length}`);
  }
  await store.put(place, bytes);
  return (await store.get(place)) ?? new Blob([bytes as BlobPart]);
}

const bytesOf = ({ dtype, shape }: DerivedTensor): number =>
  shape.reduce((product, dim) => product * dim, DTYPE_BITS[dtype] / 8);
