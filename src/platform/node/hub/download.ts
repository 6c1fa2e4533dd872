import { FemoError } from "../../../errors.js";
import type { RemoteFile } from "../../hub/listing.js";
import type { ModelId } from "../../hub/model-id.js";
import { retry, TransientError } from "../../hub/retry.js";
import type { RepositoryCache } from "./cache.js";
import type { HubClient } from "./client.js";
import { sizeOf } from "./files.js";
import { PartialFile } from "./partial-file.js";

/** Downloads of one file that may turn out wrong: a second look tells a damaged transfer from a damaged file. */
const MAX_WRONG = 2;

const HASH_NAMES = { sha256: "SHA-256", git: "git hash" } as const;

/**
 * Brings the bytes of a file into the cache, going on where an earlier download stopped. They get the blob's name only
 * when size and hash are right; until then they are kept for the next attempt, also if this one fails or is aborted.
 * @param onBytes how many bytes are there; fewer than before if they had to be thrown away
 */
export async function downloadBlob(
  client: HubClient,
  cache: RepositoryCache,
  id: ModelId,
  commit: string,
  file: RemoteFile,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const partial = await PartialFile.claim(cache.blobs, file);
  const name = `${id.repo}/${file.path}`;
  let furthest = 0;
  let wrong = 0;

  const attempt = async (): Promise<void> => {
    onBytes(partial.size);
    if (partial.size < file.size) {
      for await (const chunk of request(client, id, commit, file, partial)) {
        await partial.append(chunk);
        furthest = Math.max(furthest, partial.size);
        onBytes(partial.size);
        if (partial.size > file.size) break;
      }
    }
    if (partial.size < file.size) {
      throw new TransientError(
        `${name}: the server stopped after ${partial.size} of ${file.size} bytes. ` +
          "Check the network, then try again: what is there is kept.",
      );
    }
    if (partial.isWhole()) return;
    const found = partial.size > file.size ? "more bytes" : "other bytes";
    await partial.clear();
    if (++wrong < MAX_WRONG) return attempt();
    throw new FemoError(
      "E_FILE",
      `${name}: expected ${file.size} bytes with the ${HASH_NAMES[file.algorithm]} ${file.digest}, found ${found}, ` +
        `${wrong} times in a row. Does a proxy change what is downloaded? If not, tell the model's authors.`,
    );
  };

  try {
    await retry(attempt, client.policy, client.signal, () => furthest);
    const blob = cache.blob(file);
    if ((await sizeOf(blob)) === file.size)
      await partial.discard(); // another process has brought it meanwhile
    else await partial.finish(blob);
  } catch (error) {
    await partial.release().catch(() => {}); // the error says more
    throw error;
  }
}

/** What the partial file lacks, or all of the file if the server does not serve that part; then the partial is cleared. */
async function* request(
  client: HubClient,
  id: ModelId,
  commit: string,
  file: RemoteFile,
  partial: PartialFile,
): AsyncGenerator<Uint8Array, void> {
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  const url = client.url(`/${id.repo}/resolve/${commit}/${path}`);
  const range: Record<string, string> = partial.size > 0 ? { range: `bytes=${partial.size}-` } : {};
  const answer = await client.get(url, { id, file: file.path }, range);
  const start = /^bytes (\d+)-/.exec(answer.headers.get("content-range") ?? "")?.[1];
  const resumes = answer.status === 206 && Number(start) === partial.size;
  if (!resumes) await partial.clear();
  if (!resumes && answer.status !== 200) {
    await answer.discard();
    throw new TransientError(`${id.repo}/${file.path}: the server sent other bytes than the rest of the file.`);
  }
  yield* answer.chunks();
}
