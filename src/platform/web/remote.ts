import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as z from "zod/mini";
import { FemoError } from "../../errors.js";
import { safeParse } from "../../schema-issues.js";
import { pathInside } from "../../weights/folder-source.js";
import { parseJson } from "../../weights/json.js";
import { listFiles, type RemoteFile, resolveRevision } from "../hub/listing.js";
import { formatModelId, type ModelId } from "../hub/model-id.js";
import { type RetryPolicy, retry } from "../hub/retry.js";
import { get, readText } from "./requests.js";

/** A file on a server. */
export interface WebFile {
  readonly path: string;
  readonly url: URL;
  /** Names its bytes: another, if they change. */
  readonly id: string;
  /** Undefined if the server does not say. */
  readonly size: number | undefined;
  /** What a request for it says. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** What to do where access to it is refused, a sentence. */
  readonly onRefusal?: string | undefined;
  /** Of its bytes, if the server says it. */
  readonly hash?: Pick<RemoteFile, "algorithm" | "digest"> | undefined;
}

/** A folder on a server. */
export interface Remote {
  /** For messages and reports. */
  readonly name: string;
  /** Names it among those that are kept. */
  readonly key: string;
  /** @throws FemoError E_NETWORK, E_ACCESS, E_FILE */
  open(signal: AbortSignal | undefined, policy: RetryPolicy): Promise<RemoteFolder>;
}

export interface RemoteFolder {
  find(path: string): Promise<WebFile | undefined>;
  /** All paths, where the server says them. */
  readonly paths?: readonly string[];
}

/** The list of a folder's files that a server may have beside them: `femo-files.json`, each with its size and SHA-256. */
export const LIST_FILE = "femo-files.json";
const listSchema = z.object({
  files: z.record(
    z.string(),
    z.object({ size: z.int().check(z.nonnegative()), sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/)) }),
  ),
});

/** A folder at an address. Without a list of its files each is asked for by itself, and its hash is not known. */
export function urlRemote(base: URL): Remote {
  const name = base.origin === location.origin ? base.pathname : base.origin + base.pathname;
  return {
    name,
    key: keyOf(base.href),
    async open(signal, policy) {
      const listed = await retry(() => readList(base, signal), policy, signal);
      if (listed) return listed;
      const found = new Map<string, Promise<WebFile | undefined>>();
      return {
        find(path) {
          const known = found.get(path) ?? retry(() => ask(base, path, signal), policy, signal);
          found.set(path, known);
          return known;
        },
      };
    },
  };
}

async function readList(base: URL, signal: AbortSignal | undefined): Promise<RemoteFolder | undefined> {
  const url = new URL(LIST_FILE, base);
  const answer = await get(url, { signal, cache: "no-cache", allow: [404, 403] });
  if (answer.status !== 200 || isPage(answer)) {
    await answer.discard();
    return undefined;
  }
  const list = safeParse(
    listSchema,
    parseJson(await readText(answer), url.href, "E_NETWORK", "Is it femo's list of files?"),
  );
  if (!list.success)
    throw new FemoError("E_NETWORK", `${url.href}: not femo's list of files. Remove it, or make it again.`);
  const files = new Map(
    Object.entries(list.data.files).map(([path, { size, sha256 }]) => [
      path,
      {
        path,
        url: new URL(pathInside(base.href, path), base),
        id: sha256,
        size,
        hash: { algorithm: "sha256" as const, digest: sha256 },
      },
    ]),
  );
  return { find: async (path) => files.get(path), paths: [...files.keys()] };
}

async function ask(base: URL, path: string, signal: AbortSignal | undefined): Promise<WebFile | undefined> {
  const url = new URL(path.split("/").map(encodeURIComponent).join("/"), base);
  const answer = await get(url, { method: "HEAD", signal, cache: "no-cache", allow: [404, 403] });
  await answer.discard();
  if (answer.status !== 200 || (isPage(answer) && !/\.html?$/.test(path))) return undefined;
  const { headers } = answer;
  const isPacked = headers.has("content-encoding"); // then the length is another's
  const size = headers.has("content-length") && !isPacked ? Number(headers.get("content-length")) : undefined;
  const version = headers.get("etag") ?? headers.get("last-modified") ?? "";
  return { path, url, id: keyOf(`${url.href} ${version} ${size}`), size };
}

/** Servers of pages give a page for what they do not have. */
const isPage = ({ headers }: { readonly headers: Headers }): boolean =>
  /text\/html/.test(headers.get("content-type") ?? "");

const HUB = "https://huggingface.co";

/**
 * A model on the Hub.
 * @param token for what not everybody may read. Browsers do not send it on where the Hub sends them elsewhere
 */
export function hubRemote(id: ModelId, token?: string): Remote {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  return {
    name: formatModelId(id),
    key: keyOf(`${HUB}/${id.repo}@${id.revision}`),
    async open(signal, policy) {
      const url = (path: string): URL => new URL(HUB + path);
      const json = (address: URL) =>
        retry(
          async () => {
            const own = address.origin === HUB ? headers : {};
            const answer = await get(address, { headers: own, signal, allow: [401, 403, 404] });
            if (answer.status !== 200) {
              await answer.discard();
              throw refusal(id, answer.status, token);
            }
            const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(answer.headers.get("link") ?? "")?.[1];
            const value = parseJson(await readText(answer), address.href, "E_NETWORK", "Try again later.");
            return { value, next: next === undefined ? undefined : new URL(next, address) };
          },
          policy,
          signal,
        );
      const client = { url, json, advice: "Try again later." };
      const commit = await resolveRevision(client, id);
      const files = await listFiles(client, id, commit);
      return {
        async find(path) {
          const file = files.get(path);
          if (!file) return undefined;
          const { size, algorithm, digest } = file;
          const place = url(`/${id.repo}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`);
          return {
            path,
            url: place,
            headers,
            onRefusal: accessTo(id, token),
            id: digest,
            size,
            hash: { algorithm, digest },
          };
        },
        paths: [...files.keys()],
      };
    },
  };
}

const refusal = (id: ModelId, status: number, token: string | undefined): FemoError =>
  new FemoError(
    status === 404 ? "E_FILE" : "E_ACCESS",
    `${formatModelId(id)}: found no such model at ${HUB}, or it is private or gated (${status}). Check its name. ${accessTo(id, token)}`,
  );

/** How to get access to a model that is private or gated. */
const accessTo = (id: ModelId, token: string | undefined): string =>
  token === undefined
    ? `If it is gated, accept its licence at ${HUB}/${id.repo}; then pass the token of that account, or download the model and pick its folder.`
    : `The token was sent: see that its account has access at ${HUB}/${id.repo}, and the token the right to read gated repositories.`;

/** A short name of what a text says. */
export const keyOf = (text: string): string => bytesToHex(sha256(new TextEncoder().encode(text))).slice(0, 40);

/** A hash that is computed as bytes arrive. git hashes a file with a header before its bytes. */
export function startHash({ hash, size }: WebFile): { update(bytes: Uint8Array): void; matches(): boolean } {
  if (!hash) return { update: () => {}, matches: () => true };
  const state = hash.algorithm === "sha256" ? sha256.create() : sha1.create();
  if (hash.algorithm === "git") state.update(new TextEncoder().encode(`blob ${size}\0`));
  return { update: (bytes) => void state.update(bytes), matches: () => bytesToHex(state.digest()) === hash.digest };
}
