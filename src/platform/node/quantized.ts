import { createHash } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { FemoError } from "../../errors.js";
import { type Checkpoint, openCheckpoint } from "../../weights/checkpoint.js";
import { BLOCK, blocksOf, quantizeMatrix, scalesOf } from "../../weights/quantize.js";
import type { TensorInfo } from "../../weights/safetensors.js";
import { safetensorsHeader } from "../../weights/safetensors-header.js";
import { fileError } from "./file.js";
import { nodeFolder } from "./folder.js";
import { writeWhole } from "./whole-files.js";

/** Of what is written; another number, another file. */
const FORMAT = 1;

export interface QuantizeOptions {
  /** Where quantised weights are kept. Default: $FEMO_CACHE, $XDG_CACHE_HOME/femo or ~/.cache/femo. */
  readonly folder?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Matrices of a checkpoint in 8 bits, each as two tensors: `name`, uint8 [rows, blocks, 128], and `name.scales`, float32
 * [rows, blocks]; see `QuantizedMatrix`. They are written once, a safetensors file in a cache folder, one matrix in
 * memory at a time, and found there again until a file of the checkpoint changes. Deleting the folder is safe.
 * @param names of the matrices; float16, bfloat16, float32 or float64
 * @throws FemoError E_WEIGHT if one is not there, of another type or not finite; E_FILE if the file cannot be written; the
 *   signal's reason if it was aborted
 */
export async function quantizedCheckpoint(
  checkpoint: Checkpoint,
  names: readonly string[],
  options: QuantizeOptions = {},
): Promise<Checkpoint> {
  const matrices = names.map((name) => matrixOf(checkpoint, name));
  const path = join(options.folder ?? cacheFolder(), "int8", `${await fingerprint(matrices)}.safetensors`);
  try {
    return await openWhole(path, matrices);
  } catch (error) {
    if (!(error instanceof FemoError)) throw error; // not there, or not what was written
  }
  try {
    await writeWhole({ path, write: (temporary) => write(temporary, checkpoint, matrices, options.signal) });
  } catch (cause) {
    options.signal?.throwIfAborted();
    if (cause instanceof FemoError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FemoError(
      "E_FILE",
      `${path}: the 8-bit weights cannot be written: ${reason}. Make room there, or set FEMO_CACHE to another folder.`,
      { cause },
    );
  }
  return openWhole(path, matrices);
}

/** Empty variables count as absent. */
function cacheFolder({ FEMO_CACHE, XDG_CACHE_HOME, HOME }: NodeJS.ProcessEnv = process.env): string {
  return resolve(FEMO_CACHE || join(XDG_CACHE_HOME || join(HOME || homedir(), ".cache"), "femo"));
}

function matrixOf(checkpoint: Checkpoint, name: string): TensorInfo {
  const tensor = checkpoint.get(name);
  if (tensor?.shape.length === 2) return tensor;
  const found = tensor ? `[${tensor.shape.join(", ")}]` : "nothing";
  throw new FemoError("E_WEIGHT", `${checkpoint.name}: expected a matrix named ${name}, found ${found}`);
}

/** Changes when the tensors, their places or the files do. */
async function fingerprint(matrices: readonly TensorInfo[]): Promise<string> {
  const files = [];
  for (const file of new Set(matrices.map((matrix) => matrix.file))) {
    const { size, mtimeMs } = await stat(file).catch((cause) => {
      throw fileError(file, cause);
    });
    files.push({ file, size, mtimeMs });
  }
  const places = matrices.map(({ name, dtype, shape, file, offset }) => ({ name, dtype, shape, file, offset }));
  return createHash("sha256").update(JSON.stringify({ FORMAT, BLOCK, files, places })).digest("hex").slice(0, 32);
}

/** @throws FemoError E_FILE, E_WEIGHT if the file is not there or not of these matrices */
async function openWhole(path: string, matrices: readonly TensorInfo[]): Promise<Checkpoint> {
  const quantized = await openCheckpoint(nodeFolder(dirname(path)), path.slice(dirname(path).length + 1));
  quantized.verify(layout(matrices));
  return quantized;
}

/** The tensors of the file, in the order of their bytes: scales first, so that all of them begin at multiples of four. */
const layout = (matrices: readonly TensorInfo[]) =>
  matrices.flatMap(({ name, shape: [rows, columns] }) => {
    const blocks = [rows as number, blocksOf(columns as number)];
    return [
      { name: scalesOf(name), dtype: "float32", shape: blocks },
      { name, dtype: "uint8", shape: [...blocks, BLOCK] },
    ] as const;
  });

async function write(
  path: string,
  checkpoint: Checkpoint,
  matrices: readonly TensorInfo[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(safetensorsHeader(layout(matrices)));
    for (const { name, shape } of matrices) {
      signal?.throwIfAborted();
      const weights = await checkpoint.readTensor(name);
      const { scales, values } = quantizeMatrix(weights, shape[1] as number, `${checkpoint.name}: ${name}`);
      await file.writeFile(new Uint8Array(scales.buffer));
      await file.writeFile(values);
    }
  } finally {
    await file.close();
  }
}
