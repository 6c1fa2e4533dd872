import { createHash } from "node:crypto";
import { type BigIntStats, constants } from "node:fs";
import { open, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { FemoError } from "../../errors.js";
import { Checkpoint, type DerivedTensor, readSafetensorsHeader } from "../../weights/index.js";
import type { KeepOptions } from "../platform.js";
import { fileError, fingerprintOf, openFile } from "./file.js";
import {
  bytesOf,
  isWhole,
  type KeptLayout,
  keptLayout,
  markFinished,
  putInPlace,
  record,
  resume,
} from "./kept-file.js";
import { claimFile, type OwnedFiles, releaseFile } from "./owned-files.js";

export interface KeptOptions extends KeepOptions {
  /** Where such files are. Default: $FEMO_CACHE, $XDG_CACHE_HOME/femo or ~/.cache/femo. */
  readonly folder?: string | undefined;
}

/** See `Platform.kept`. Deleting the folder is safe, as long as no process uses a model whose weights are in it. */
export async function keptCheckpoint(checkpoint: Checkpoint, options: KeptOptions = {}): Promise<Checkpoint> {
  const tensors = inOrder(checkpoint.derived());
  if (tensors.length === 0) return checkpoint;
  const sources = await statSources(checkpoint, tensors);
  const layout = keptLayout(tensors);
  const path = join(options.folder ?? cacheFolder(), "weights", `${keyOf(tensors, sources)}.safetensors`);
  if (!(await isWhole(path, layout))) {
    await make(path, layout, tensors, options, async () => {
      await statSources(checkpoint, tensors, sources);
    });
  }
  return checkpoint.withKept(await openKept(path));
}

/** Where femo keeps what it made or downloaded. Empty variables count as absent. */
export function cacheFolder({ FEMO_CACHE, XDG_CACHE_HOME, HOME }: NodeJS.ProcessEnv = process.env): string {
  return resolve(FEMO_CACHE || join(XDG_CACHE_HOME || join(HOME || homedir(), ".cache"), "femo"));
}

/** Under the names that they are kept by; those of odd lengths last, so that the others begin at multiples of four. */
const inOrder = (derived: ReadonlyMap<string, DerivedTensor>): DerivedTensor[] =>
  Array.from(derived, ([name, tensor]) => ({ ...tensor, name })).sort((a, b) => isOdd(a) - isOdd(b));

const isOdd = (tensor: DerivedTensor): number => Number(bytesOf(tensor) % 4 !== 0);

type Sources = readonly { readonly file: string; readonly stats: BigIntStats }[];

/**
 * The files that tensors are made from.
 * @param before as they were
 * @throws FemoError E_FILE if one is not there, or is not what it was before, or when the checkpoint was opened
 */
async function statSources(
  checkpoint: Checkpoint,
  tensors: readonly DerivedTensor[],
  before: Sources = [],
): Promise<Sources> {
  const found = [];
  for (const file of new Set(tensors.flatMap(({ files }) => files))) {
    const stats = await stat(file, { bigint: true }).catch((cause) => {
      throw fileError(file, cause);
    });
    const earlier = before.find((source) => source.file === file);
    const known = earlier ? fingerprintOf(earlier.stats) : checkpoint.fingerprint(file);
    if (known !== undefined && known !== fingerprintOf(stats)) {
      throw new FemoError("E_FILE", `${file}: changed since it was opened. Open the model again.`);
    }
    found.push({ file, stats });
  }
  return found;
}

/** Changes when a recipe or a file does. */
function keyOf(tensors: readonly DerivedTensor[], sources: Sources): string {
  const files = sources.map(({ file, stats: { size, mtimeNs } }) => [file, String(size), String(mtimeNs)]);
  const recipes = tensors.map(({ name, dtype, shape, recipe }) => [name, dtype, shape, recipe]);
  return createHash("sha256")
    .update(JSON.stringify([files, recipes]))
    .digest("hex")
    .slice(0, 32);
}

async function openKept(path: string): Promise<Checkpoint> {
  const source = await openFile(path);
  try {
    const { tensors } = await readSafetensorsHeader(source);
    const { fingerprint } = source;
    const files = new Map(fingerprint === undefined ? [] : [[path, { fingerprint }]]);
    return Checkpoint.fromTensors(path, tensors.values(), (file) => openFile(file), files);
  } finally {
    await source.close();
  }
}

/**
 * Makes the file, or what is missing of it: tensor by tensor, in a file of one's own that takes its name when it is whole.
 * What was made is left for the next one if this one is stopped.
 */
async function make(
  path: string,
  layout: KeptLayout,
  tensors: readonly DerivedTensor[],
  { signal, onProgress }: KeepOptions,
  checkSources: () => Promise<void>,
): Promise<void> {
  const files: OwnedFiles = { folder: dirname(path), stem: basename(path, ".safetensors"), ending: "part" };
  const tell = (done: number) =>
    onProgress?.({
      tensor: tensors[done - 1]?.name,
      ...{ tensorsDone: done, tensorsTotal: tensors.length },
      ...{ bytesDone: layout.places[done - 1]?.end ?? 0, bytesTotal: layout.bytes },
    });
  const own = await writing(path, layout, () => claimFile(files));
  let done = 0;
  try {
    const file = await writing(path, layout, () => open(own, constants.O_RDWR | constants.O_CREAT));
    try {
      done = await writing(path, layout, () => resume(file, layout));
      for (tell(done); done < tensors.length; tell(done)) {
        signal?.throwIfAborted();
        const bytes = await made(tensors[done] as DerivedTensor);
        await writing(path, layout, () => record(file, layout, done, bytes));
        done++;
      }
      await checkSources().catch((cause) => {
        done = 0; // a mixture of two files is of no use
        throw cause;
      });
      await writing(path, layout, () => markFinished(file, layout));
    } finally {
      await file.close();
    }
    await writing(path, layout, () => putInPlace(own, path, layout));
  } catch (error) {
    // A damaged source has another name once it is mended.
    const isUseful = done > 0 && !(error instanceof FemoError && error.code === "E_WEIGHT");
    await (isUseful ? releaseFile(own, files) : rm(own, { force: true })).catch(() => {});
    throw error;
  }
}

/** @throws FemoError E_WEIGHT if it has another length than it should */
async function made(tensor: DerivedTensor): Promise<Uint8Array> {
  const [bytes, expected] = [await tensor.make(), bytesOf(tensor)];
  if (bytes.length === expected) return bytes;
  throw new FemoError("E_WEIGHT", `${tensor.name}: expected ${expected} bytes, made ${bytes.length}`);
}

/** @throws FemoError E_FILE that says what to do if the file system fails */
async function writing<T>(path: string, { bytes }: KeptLayout, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const size = bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
    throw new FemoError(
      "E_FILE",
      `${path}: ${size} of weights cannot be written: ${reason}. Make room there, or set FEMO_CACHE to another folder; ` +
        "what is written already is kept.",
      { cause },
    );
  }
}
