import { FemoError } from "../../errors.js";
import { type FolderSource, folderInside, namesIn, pathInside } from "../../weights/folder-source.js";
import { pipelineFiles } from "../../weights/select.js";
import { quote } from "../../weights/text.js";
import { broughtFolder } from "../hub/brought-folder.js";
import { inTurn } from "../hub/in-turn.js";
import { defaultRetryPolicy, type RetryPolicy, retry, TransientError } from "../hub/retry.js";
import type { FindOptions } from "../platform.js";
import { type BlobFile, blobFolder } from "./blob-folder.js";
import { type Remote, type RemoteFolder, startHash, type WebFile } from "./remote.js";
import { get } from "./requests.js";
import type { Store } from "./store.js";

/** Bytes of the pieces in which files are kept: what a broken download loses at most. */
const PIECE_BYTES = 2 ** 23;
/** Downloads of one file that may turn out wrong: a second look tells a damaged transfer from a damaged file. */
const MAX_WRONG = 2;

type Options = Pick<FindOptions, "signal" | "onProgress" | "select">;

/**
 * The files of a folder on a server that are needed, brought into the store as far as they are not there. If the server
 * cannot be reached, what was brought earlier does.
 * @throws FemoError E_NETWORK, E_ACCESS, E_FILE; the signal's reason if it was aborted
 */
export async function openRemote(remote: Remote, store: Store, options: Options = {}): Promise<FolderSource> {
  const { signal, select = pipelineFiles } = options;
  const known = await readIndex(store, remote);
  const usable = known && (await isEnough(known, select)) ? known : undefined;
  try {
    // With a copy at hand nobody should wait long for a network that is not there.
    const policy = usable ? { ...defaultRetryPolicy, attempts: 1 } : defaultRetryPolicy;
    const found = await remote.open(signal, policy);
    return await new Download(remote, found, store, options).run(select);
  } catch (error) {
    signal?.throwIfAborted();
    if (usable && error instanceof FemoError && ["E_NETWORK", "E_ACCESS"].includes(error.code)) return usable;
    throw error;
  }
}

/** One folder on its way into the store. */
class Download {
  readonly #remote: Remote;
  readonly #found: RemoteFolder;
  readonly #store: Store;
  readonly #options: Options;
  readonly #there = new Map<string, BlobFile>();

  constructor(remote: Remote, found: RemoteFolder, store: Store, options: Options) {
    this.#remote = remote;
    this.#found = found;
    this.#store = store;
    this.#options = options;
  }

  async run(select: NonNullable<Options["select"]>): Promise<FolderSource> {
    const paths = [...new Set(await select(this.#folder()))];
    const needed = await Promise.all(paths.map((path) => this.#find(path)));
    const whole = await Promise.all(needed.map((file) => kept(this.#store, file.id)));
    const size = (file: WebFile, i: number): number => whole[i]?.size ?? file.size ?? 0;
    const bytesTotal = needed.reduce((sum, file, i) => sum + size(file, i), 0);
    let bytesDone = needed.reduce((sum, file, i) => sum + (whole[i] ? size(file, i) : 0), 0);
    for (const [i, file] of needed.entries()) {
      if (whole[i]) {
        this.#there.set(file.path, { blob: whole[i], version: file.id });
        continue;
      }
      const before = bytesDone;
      await this.#bring(file, (bytes) => {
        bytesDone = before + bytes;
        const progress = {
          model: this.#remote.name,
          file: file.path,
          bytesDone,
          bytesTotal: Math.max(bytesTotal, bytesDone),
        };
        this.#options.onProgress?.(progress);
      });
    }
    await writeIndex(this.#store, this.#remote, needed);
    return folderOf(this.#remote, this.#there);
  }

  /** The server's files as a folder: what is read is brought first. */
  #folder(): FolderSource {
    const { name } = this.#remote;
    const { paths } = this.#found;
    const local = folderOf(this.#remote, this.#there);
    const bring = async (path: string): Promise<void> => this.#bring(await this.#find(path), () => {});
    const there = {
      name,
      exists: async (path: string) => (await this.#found.find(pathInside(name, path))) !== undefined,
      ...(paths && { list: async (path: string) => namesIn(paths, folderInside(name, path)) }),
    };
    return broughtFolder(there, local, bring);
  }

  async #find(path: string): Promise<WebFile> {
    const file = await this.#found.find(pathInside(this.#remote.name, path));
    if (file) return file;
    throw new FemoError("E_FILE", `${this.#remote.name}: has no file ${quote(path)}. Check its name.`);
  }

  async #bring(file: WebFile, onBytes: (bytes: number) => void): Promise<void> {
    const { signal } = this.#options;
    const blob = await inTurn(file.id, signal, async () => {
      return (await kept(this.#store, file.id)) ?? (await bring(file, this.#store, { signal, onBytes }));
    });
    this.#there.set(file.path, { blob, version: file.id });
  }
}

const pieceKey = (id: string, piece: number): string => `blobs/${id}/${piece}`;
const wholeKey = (id: string): string => `blobs/${id}/whole`;

/** A file that was brought; undefined if it was not, or the browser has thrown some of it away. */
async function kept(store: Store, id: string): Promise<Blob | undefined> {
  const whole = await store.get(wholeKey(id));
  if (!whole) return undefined;
  const { pieces, size } = JSON.parse(await whole.text()) as { pieces: number; size: number };
  const blobs = await Promise.all(Array.from({ length: pieces }, (_, i) => store.get(pieceKey(id, i))));
  if (blobs.some((blob) => !blob)) return undefined;
  const blob = new Blob(blobs as Blob[]);
  return blob.size === size ? blob : undefined;
}

interface BringOptions {
  readonly signal: AbortSignal | undefined;
  /** How many bytes are there; fewer than before if they had to be thrown away. */
  readonly onBytes: (bytes: number) => void;
  readonly policy?: RetryPolicy;
}

/**
 * Brings a file, piece by piece, going on where an earlier download stopped. It counts only when size and hash are right;
 * until then its pieces are kept for the next attempt.
 */
async function bring(
  file: WebFile,
  store: Store,
  { signal, onBytes, policy = defaultRetryPolicy }: BringOptions,
): Promise<Blob> {
  const name = file.url.origin + file.url.pathname;
  let furthest = 0;
  let wrong = 0;
  const attempt = async (): Promise<Blob> => {
    const partial = await Partial.open(file, store);
    onBytes(partial.size);
    try {
      if (file.size === undefined || partial.size < file.size) {
        for await (const chunk of request(file, partial, signal)) {
          await partial.append(chunk);
          furthest = Math.max(furthest, partial.size);
          onBytes(partial.size);
          if (file.size !== undefined && partial.size > file.size) break;
        }
      }
    } catch (error) {
      await partial.flush().catch(() => {}); // the error says more
      throw error;
    }
    await partial.flush();
    if (file.size !== undefined && partial.size < file.size) {
      throw new TransientError(
        `${name}: the server stopped after ${partial.size} of ${file.size} bytes. Check the network, then try again: what is there is kept.`,
      );
    }
    if (partial.isWhole()) return partial.finish();
    const found = partial.size > (file.size ?? Number.POSITIVE_INFINITY) ? "more bytes" : "other bytes";
    await partial.clear();
    if (++wrong < MAX_WRONG) return attempt();
    throw new FemoError(
      "E_FILE",
      `${name}: expected ${file.size} bytes with the hash ${file.hash?.digest}, found ${found}, ${wrong} times in a row. ` +
        "Is the file on the server another than its list says?",
    );
  };
  return retry(attempt, policy, signal, () => furthest);
}

/** What is missing, or all of the file if the server does not serve that part; then what there was is thrown away. */
async function* request(
  file: WebFile,
  partial: Partial,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void> {
  const isPart = partial.size > 0;
  const answer = await get(file.url, {
    signal,
    cache: "no-store", // it is kept here
    onRefusal: file.onRefusal,
    headers: { ...file.headers, ...(isPart && { range: `bytes=${partial.size}-` }) },
    ...(isPart && { allow: [206, 416] }),
  });
  const resumes = isPart && answer.status === 206;
  if (isPart && !resumes) await partial.clear();
  if (answer.status === 416) {
    await answer.discard();
    throw new TransientError(`${file.url.pathname}: the server sent other bytes than the rest of the file.`);
  }
  yield* answer.chunks();
}

/** The bytes of a file that have arrived so far. */
class Partial {
  readonly #file: WebFile;
  readonly #store: Store;
  readonly #pieces: Blob[] = [];
  #hash: ReturnType<typeof startHash>;
  /** What is not in a piece yet. */
  #rest: Uint8Array[] = [];
  #restBytes = 0;
  #size = 0;

  private constructor(file: WebFile, store: Store) {
    this.#file = file;
    this.#store = store;
    this.#hash = startHash(file);
  }

  static async open(file: WebFile, store: Store): Promise<Partial> {
    const partial = new Partial(file, store);
    for (;;) {
      const piece = await store.get(pieceKey(file.id, partial.#pieces.length));
      if (!piece) return partial;
      partial.#hash.update(new Uint8Array(await piece.arrayBuffer()));
      partial.#pieces.push(piece);
      partial.#size += piece.size;
    }
  }

  get size(): number {
    return this.#size;
  }

  async append(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    this.#rest.push(bytes);
    this.#restBytes += bytes.length;
    this.#size += bytes.length;
    if (this.#restBytes >= PIECE_BYTES) await this.flush();
  }

  /** Keeps what has arrived. */
  async flush(): Promise<void> {
    if (this.#restBytes === 0) return;
    const bytes = new Uint8Array(await new Blob(this.#rest as BlobPart[]).arrayBuffer());
    const key = pieceKey(this.#file.id, this.#pieces.length);
    await this.#store.put(key, bytes);
    this.#pieces.push((await this.#store.get(key)) ?? new Blob([bytes]));
    this.#rest = [];
    this.#restBytes = 0;
  }

  isWhole(): boolean {
    return (this.#file.size === undefined || this.#size === this.#file.size) && this.#hash.matches();
  }

  async finish(): Promise<Blob> {
    const whole = { pieces: this.#pieces.length, size: this.#size };
    await this.#store.put(wholeKey(this.#file.id), new TextEncoder().encode(JSON.stringify(whole)));
    return new Blob(this.#pieces);
  }

  /** Throws the bytes away. */
  async clear(): Promise<void> {
    await this.#store.remove(`blobs/${this.#file.id}`);
    this.#pieces.length = 0;
    this.#rest = [];
    this.#restBytes = 0;
    this.#size = 0;
    this.#hash = startHash(this.#file);
  }
}

const folderOf = (remote: Remote, files: ReadonlyMap<string, BlobFile>): FolderSource =>
  blobFolder(remote.name, files, `/${remote.key}`);

/** What was brought of a folder, if all of it is still there. */
async function readIndex(store: Store, remote: Remote): Promise<FolderSource | undefined> {
  const index = await store.get(`models/${remote.key}`);
  if (!index) return undefined;
  const files = new Map<string, BlobFile>();
  for (const [path, id] of Object.entries(JSON.parse(await index.text()) as Record<string, string>)) {
    const blob = await kept(store, id);
    if (!blob) return undefined;
    files.set(path, { blob, version: id });
  }
  return folderOf(remote, files);
}

const writeIndex = (store: Store, remote: Remote, files: readonly WebFile[]): Promise<void> =>
  store.put(
    `models/${remote.key}`,
    new TextEncoder().encode(JSON.stringify(Object.fromEntries(files.map(({ path, id }) => [path, id])))),
  );

async function isEnough(folder: FolderSource, select: NonNullable<Options["select"]>): Promise<boolean> {
  try {
    const { list: _, ...unlisted } = folder; // the server may have more, of which the selection depends
    for (const path of await select(unlisted)) if (!(await folder.exists(path))) return false;
    return true;
  } catch (error) {
    if (error instanceof FemoError) return false;
    throw error;
  }
}
