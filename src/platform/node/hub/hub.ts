import { resolve } from "node:path";
import { FemoError } from "../../../errors.js";
import { type FolderSource, folderInside, namesIn, pathInside } from "../../../weights/folder-source.js";
import { pipelineFiles } from "../../../weights/select.js";
import { quote } from "../../../weights/text.js";
import { broughtFolder } from "../../hub/brought-folder.js";
import { inTurn } from "../../hub/in-turn.js";
import { listFiles, type RemoteFile, resolveRevision } from "../../hub/listing.js";
import { formatModelId, isCommit, type ModelId } from "../../hub/model-id.js";
import { defaultRetryPolicy, NotFoundError, type RetryPolicy } from "../../hub/retry.js";
import type { DownloadProgress } from "../../platform.js";
import { nodeFolder } from "../folder.js";
import { RepositoryCache } from "./cache.js";
import { HubClient } from "./client.js";
import { downloadBlob } from "./download.js";
import { type Environment, type HubSettings, hubSettings } from "./settings.js";

type Select = (folder: FolderSource) => Promise<readonly string[]>;

/** How to download. */
export interface DownloadOptions {
  /** Stops the download; what has arrived is kept and the next one goes on from there. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** The variables of `hubSettings`; those of the process unless told. */
  readonly env?: Environment;
  /** The folder that holds a folder for each repository; that of the environment unless told. */
  readonly cacheDir?: string | undefined;
  /** In place of that of the environment. */
  readonly token?: string | undefined;
  /** Which of the repository's files are needed, by path; those of `pipelineFiles` unless told. */
  readonly select?: Select;
  readonly retry?: Partial<RetryPolicy>;
}

/**
 * A model on the Hub as a folder; see `downloadFiles`. Messages name it by its id.
 * @throws FemoError as `downloadFiles`
 */
export async function openHubModel(id: ModelId, options: DownloadOptions = {}): Promise<FolderSource> {
  return nodeFolder(await downloadFiles(id, options), formatModelId(id));
}

/**
 * Downloads the files of a model that are needed and are not there yet, into the cache that Python's huggingface_hub
 * uses, and gives their folder. Asks the Hub for the revision's commit; needs no network if the revision is a commit
 * that is there, and makes do with what is there if the Hub cannot be reached, refuses or has no such model any more.
 * Several downloads at once bring each file once.
 * @throws FemoError E_NETWORK if the Hub cannot be reached; E_ACCESS if it refuses; E_FILE if there is no such model or
 *   file, or its bytes are not those it should have; the signal's reason if it was aborted
 */
export async function downloadFiles(id: ModelId, options: DownloadOptions = {}): Promise<string> {
  const { signal, env, cacheDir, token, select = pipelineFiles } = options;
  signal?.throwIfAborted();
  const settings: HubSettings = {
    ...(await hubSettings(env)),
    ...(cacheDir !== undefined && { cache: resolve(cacheDir) }),
    ...(token !== undefined && { token, tokenSource: "the option token", tokenWithheld: false }),
  };
  const cache = new RepositoryCache(settings, id.repo);
  const known = await cache.commitOf(id.revision);
  const at = (commit: string): FolderSource => nodeFolder(cache.snapshot(commit), formatModelId(id));
  const problem = known === undefined ? "it was never downloaded" : await lacking(at(known), select);

  if (settings.offline) {
    if (known !== undefined && problem === undefined) return cache.snapshot(known);
    throw new FemoError(
      "E_FILE",
      `${formatModelId(id)}: not whole in the cache ${settings.cache}, and ${settings.offline} forbids to download it. ` +
        `Unset ${settings.offline} once, or set HF_HUB_CACHE to the folder that has it. What is missing: ${problem}`,
    );
  }

  const usable = problem === undefined ? known : undefined;
  const isWhole = async (commit: string): Promise<boolean> => {
    const { list: _, ...folder } = at(commit); // the repository may have more, of which the selection depends
    return (await lacking(folder, select)) === undefined;
  };
  if (isCommit(id.revision) && (await isWhole(id.revision))) return cache.snapshot(id.revision);
  const client = new HubClient({ settings, policy: { ...defaultRetryPolicy, ...options.retry }, signal });
  const asking = usable === undefined ? client : impatient(client);
  try {
    const commit = isCommit(id.revision) ? id.revision : await resolveRevision(asking, id);
    if (!(await isWhole(commit))) {
      const files = await listFiles(asking, id, commit);
      await new Download(client, cache, id, commit, files, options.onProgress).run(select);
    }
    await cache.remember(id.revision, commit);
    return cache.snapshot(commit);
  } catch (error) {
    if (usable !== undefined && isNo(error)) return cache.snapshot(usable);
    throw error;
  }
}

/** With a copy at hand nobody should wait long for a network that is not there. */
function impatient({ settings, policy, signal }: HubClient): HubClient {
  const timeoutMs = Math.min(settings.timeoutMs, 3000);
  return new HubClient({ settings: { ...settings, timeoutMs }, policy: { ...policy, attempts: 1 }, signal });
}

/**
 * Answers of the Hub, or of the network in its place, with which a copy is still good: as in Python, also when a token
 * has expired or the model is gone. Not when the revision is gone, or the disk is full.
 */
const isNo = (error: unknown): boolean =>
  error instanceof NotFoundError || (error instanceof FemoError && ["E_NETWORK", "E_ACCESS"].includes(error.code));

/** Why a snapshot is not enough; undefined if it is. */
async function lacking(folder: FolderSource, select: Select): Promise<string | undefined> {
  try {
    for (const path of await select(folder)) if (!(await folder.exists(path))) return `the file ${quote(path)}`;
    return undefined;
  } catch (error) {
    if (error instanceof FemoError) return error.message;
    throw error;
  }
}

/** One model at one commit on its way into the cache. */
class Download {
  readonly #client: HubClient;
  readonly #cache: RepositoryCache;
  readonly #id: ModelId;
  readonly #commit: string;
  readonly #files: ReadonlyMap<string, RemoteFile>;
  readonly #onProgress: ((progress: DownloadProgress) => void) | undefined;

  constructor(
    client: HubClient,
    cache: RepositoryCache,
    id: ModelId,
    commit: string,
    files: ReadonlyMap<string, RemoteFile>,
    onProgress: ((progress: DownloadProgress) => void) | undefined,
  ) {
    this.#client = client;
    this.#cache = cache;
    this.#id = id;
    this.#commit = commit;
    this.#files = files;
    this.#onProgress = onProgress;
  }

  async run(select: Select): Promise<void> {
    const needed = [...new Set(await select(this.#folder()))].map((path) => this.#find(path));
    const bytesTotal = needed.reduce((sum, { size }) => sum + size, 0);
    const missing: RemoteFile[] = [];
    for (const file of needed) if (!(await this.#isThere(file))) missing.push(file);
    let bytesDone = bytesTotal - missing.reduce((sum, { size }) => sum + size, 0);
    for (const file of missing) {
      const before = bytesDone;
      const onBytes = (bytes: number): void => {
        bytesDone = before + bytes;
        this.#onProgress?.({ model: formatModelId(this.#id), file: file.path, bytesDone, bytesTotal });
      };
      await this.#bring(file, onBytes);
      bytesDone = before + file.size;
    }
  }

  /** The repository's files as a folder: what is read is downloaded first. */
  #folder(): FolderSource {
    const local = nodeFolder(this.#cache.snapshot(this.#commit), formatModelId(this.#id));
    const bring = (path: string): Promise<void> => this.#bring(this.#find(path), () => {});
    const there = {
      name: formatModelId(this.#id),
      exists: async (path: string) => this.#files.has(pathInside(this.#id.repo, path)),
      list: async (path: string) => namesIn(this.#files.keys(), folderInside(this.#id.repo, path)),
    };
    return broughtFolder(there, local, bring);
  }

  #find(path: string): RemoteFile {
    const file = this.#files.get(pathInside(this.#id.repo, path));
    if (file) return file;
    throw new FemoError("E_FILE", `${formatModelId(this.#id)}: has no file ${quote(path)}. Check its name.`);
  }

  /** In the snapshot, or brought there because another commit has the same bytes. */
  async #isThere(file: RemoteFile): Promise<boolean> {
    if (await this.#cache.has(this.#commit, file)) return true;
    if (!(await this.#cache.hasBlob(file))) return false;
    await this.#cache.place(this.#commit, file, false);
    return true;
  }

  /** Unless another download, of this process or of a file with the same bytes, has brought them by now. */
  #bring(file: RemoteFile, onBytes: (bytes: number) => void): Promise<void> {
    return inTurn(this.#cache.blob(file), this.#client.signal, async () => {
      if (await this.#isThere(file)) return;
      await downloadBlob(this.#client, this.#cache, this.#id, this.#commit, file, onBytes);
      await this.#cache.place(this.#commit, file, true);
    });
  }
}
