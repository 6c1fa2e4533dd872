import { FemoError } from "../../errors.js";
import { type FolderSource, pathInside } from "../folder-source.js";
import { nodeFolder } from "../node-folder.js";
import { quote } from "../text.js";
import { RepositoryCache } from "./cache.js";
import { HubClient } from "./client.js";
import { downloadBlob } from "./download.js";
import { listFiles, type RemoteFile, resolveRevision } from "./listing.js";
import { formatModelId, isCommit, type ModelId } from "./model-id.js";
import { defaultRetryPolicy, type RetryPolicy } from "./retry.js";
import { pipelineFiles } from "./select.js";
import { type Environment, hubSettings } from "./settings.js";

/** How far a download is. Not called at all if everything is there already. */
export interface DownloadProgress {
  /** "owner/name", with the revision if that is not main. */
  readonly model: string;
  /** The file that is being downloaded, by its path in the repository. */
  readonly file: string;
  /** Of all files that are needed, those that were there already included. May go back if bytes arrived damaged. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** How to download. */
export interface DownloadOptions {
  /** Stops the download; what has arrived is kept and the next one goes on from there. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** The variables of `hubSettings`; those of the process unless told. */
  readonly env?: Environment;
  /** Which of the repository's files are needed, by path; those of `pipelineFiles` unless told. */
  readonly select?: (folder: FolderSource) => Promise<readonly string[]>;
  readonly retry?: Partial<RetryPolicy>;
}

/**
 * A model on the Hub as a folder; see `downloadFiles`. Messages name it by its id.
 * @throws FemoError as `downloadFiles`
 */
export async function openHubModel(id: ModelId, options: DownloadOptions = {}): Promise<FolderSource> {
  return { ...nodeFolder(await downloadFiles(id, options)), name: formatModelId(id) };
}

/**
 * Downloads the files of a model that are needed and are not there yet, into the cache that Python's huggingface_hub
 * uses, and gives their folder. Asks the Hub for the revision's commit; needs no network if the revision is a commit
 * that is there, and makes do with what is there if the Hub cannot be reached or refuses.
 * @throws FemoError E_NETWORK if the Hub cannot be reached; E_ACCESS if it refuses; E_FILE if there is no such model or
 *   file, or its bytes are not those it should have; the signal's reason if it was aborted
 */
export async function downloadFiles(id: ModelId, options: DownloadOptions = {}): Promise<string> {
  const { signal, env, select = pipelineFiles } = options;
  signal?.throwIfAborted();
  const settings = await hubSettings(env);
  const cache = new RepositoryCache(settings, id.repo);
  const known = await cache.commitOf(id.revision);

  if (settings.offline) {
    const problem = known === undefined ? "it was never downloaded" : await lacking(cache, id, known, select);
    if (known !== undefined && problem === undefined) return cache.snapshot(known);
    throw new FemoError(
      "E_FILE",
      `${formatModelId(id)}: not whole in the cache ${settings.cache}, and HF_HUB_OFFLINE forbids to download it. ` +
        `Unset HF_HUB_OFFLINE once, or set HF_HUB_CACHE to the folder that has it. What is missing: ${problem}`,
    );
  }

  const there = known !== undefined && (await lacking(cache, id, known, select)) === undefined ? known : undefined;
  if (there !== undefined && isCommit(id.revision)) return cache.snapshot(there);
  const policy = { ...defaultRetryPolicy, ...options.retry };
  // With a copy at hand nobody should wait long for a network that is not there.
  const asking = there === undefined ? policy : { ...policy, attempts: 1 };
  let commit: string;
  try {
    commit = isCommit(id.revision)
      ? id.revision
      : await resolveRevision(new HubClient({ settings, policy: asking, signal }), id);
  } catch (error) {
    if (there === undefined || !(error instanceof FemoError && MAKE_DO.has(error.code))) throw error;
    return cache.snapshot(there);
  }
  const whole = commit === there || (commit !== known && (await lacking(cache, id, commit, select)) === undefined);
  if (!whole) {
    const client = new HubClient({ settings, policy, signal });
    await new Download(client, cache, id, commit, options.onProgress).run(select);
  }
  await cache.remember(id.revision, commit);
  return cache.snapshot(commit);
}

/** Failures to ask the Hub with which a copy is still good: as in Python, also when a token has expired. */
const MAKE_DO: ReadonlySet<string> = new Set(["E_NETWORK", "E_ACCESS"]);

/** Why a snapshot is not enough; undefined if it is. */
async function lacking(
  cache: RepositoryCache,
  id: ModelId,
  commit: string,
  select: (folder: FolderSource) => Promise<readonly string[]>,
): Promise<string | undefined> {
  const folder = { ...nodeFolder(cache.snapshot(commit)), name: formatModelId(id) };
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
  readonly #onProgress: ((progress: DownloadProgress) => void) | undefined;

  constructor(
    client: HubClient,
    cache: RepositoryCache,
    id: ModelId,
    commit: string,
    onProgress: ((progress: DownloadProgress) => void) | undefined,
  ) {
    this.#client = client;
    this.#cache = cache;
    this.#id = id;
    this.#commit = commit;
    this.#onProgress = onProgress;
  }

  async run(select: (folder: FolderSource) => Promise<readonly string[]>): Promise<void> {
    const files = await listFiles(this.#client, this.#id, this.#commit);
    const paths = await select(this.#folder(files));
    const needed = [...new Set(paths)].map((path) => this.#find(files, path));
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
      if (!(await this.#isThere(file))) await this.#fetch(file, onBytes); // another may have had the same bytes
      bytesDone = before + file.size;
    }
  }

  /** The repository's files as a folder: what is read is downloaded first. */
  #folder(files: ReadonlyMap<string, RemoteFile>): FolderSource {
    const local = nodeFolder(this.#cache.snapshot(this.#commit));
    const bring = async (path: string): Promise<void> => {
      const file = this.#find(files, path);
      if (!(await this.#isThere(file))) await this.#fetch(file, () => {});
    };
    return {
      name: formatModelId(this.#id),
      exists: async (path) => files.has(pathInside(this.#id.repo, path)),
      async readText(path, maxBytes) {
        await bring(path);
        return local.readText(path, maxBytes);
      },
      async open(path) {
        await bring(path);
        return local.open(path);
      },
      resolve: (path) => local.resolve(path),
    };
  }

  #find(files: ReadonlyMap<string, RemoteFile>, path: string): RemoteFile {
    const file = files.get(pathInside(this.#id.repo, path));
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

  async #fetch(file: RemoteFile, onBytes: (bytes: number) => void): Promise<void> {
    await downloadBlob(this.#client, this.#cache, this.#id, this.#commit, file, onBytes);
    await this.#cache.place(this.#commit, file, true);
  }
}
