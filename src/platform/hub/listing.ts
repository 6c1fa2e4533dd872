import * as z from "zod/mini";
import { FemoError } from "../../errors.js";
import { safeParse, schemaIssues } from "../../schema-issues.js";
import { pathInside } from "../../weights/folder-source.js";
import { listSome } from "../../weights/text.js";
import { isCommit, type ModelId } from "./model-id.js";

/** A file of a repository at a commit. */
export interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of its bytes if the repository stores it apart (LFS); otherwise the hash that git gives it. */
  readonly algorithm: "sha256" | "git";
  /** In hexadecimal digits; the name of the blob in the cache. */
  readonly digest: string;
}

/** Who asks the Hub. */
export interface JsonClient {
  /** The address of what the Hub has at a path, which starts with a slash. */
  url(path: string): URL;
  /** What to check where the answer is not a Hub's. */
  readonly advice: string;
  /** A JSON document and the address of its next page. @throws FemoError E_NETWORK, E_ACCESS, E_FILE */
  json(url: URL, wanted: { readonly id: ModelId }): Promise<{ value: unknown; next: URL | undefined }>;
}

const size = z.int().check(z.nonnegative());
const revisionSchema = z.looseObject({ sha: z.string().check(z.refine(isCommit, "expected the hash of a commit")) });
const treeSchema = z.array(
  z.looseObject({
    type: z.string(),
    path: z.string(),
    oid: z.string().check(z.regex(/^[0-9a-f]{40}$/)),
    size,
    lfs: z.optional(z.looseObject({ oid: z.string().check(z.regex(/^[0-9a-f]{64}$/)), size })),
  }),
);

/** More pages of files than any model has: the server goes in circles. */
const MAX_PAGES = 1000;

/** The commit that a revision stands for now. */
export async function resolveRevision(client: JsonClient, id: ModelId): Promise<string> {
  const url = client.url(`/api/models/${id.repo}/revision/${encodeURIComponent(id.revision)}`);
  const { value } = await client.json(url, { id });
  return checked(revisionSchema, value, url, client.advice).sha;
}

/**
 * All files of a repository at a commit, by path.
 * @throws FemoError E_NETWORK if the list is malformed; E_FILE if a path leads out of the folder
 */
export async function listFiles(client: JsonClient, id: ModelId, commit: string): Promise<Map<string, RemoteFile>> {
  const files = new Map<string, RemoteFile>();
  let url: URL | undefined = client.url(`/api/models/${id.repo}/tree/${commit}?recursive=true`);
  for (let pages = 0; url; pages++) {
    if (pages === MAX_PAGES) throw new FemoError("E_NETWORK", `${id.repo}: its list of files does not end.`);
    const page: { value: unknown; next: URL | undefined } = await client.json(url, { id });
    for (const { type, path, oid, size, lfs } of checked(treeSchema, page.value, url, client.advice)) {
      if (type !== "file") continue;
      if (pathInside(id.repo, path) !== path) {
        throw new FemoError("E_FILE", `${id.repo}: the server names a file ${JSON.stringify(path)}, which is no path.`);
      }
      files.set(
        path,
        lfs
          ? { path, size: lfs.size, algorithm: "sha256", digest: lfs.oid }
          : { path, size, algorithm: "git", digest: oid },
      );
    }
    url = page.next;
  }
  return files;
}

function checked<T>(schema: z.ZodMiniType<T>, value: unknown, { origin, pathname }: URL, advice: string): T {
  const parsed = safeParse(schema, value);
  if (parsed.success) return parsed.data;
  const issues = schemaIssues(parsed.error, "the answer");
  throw new FemoError(
    "E_NETWORK",
    `${origin}${pathname}: not the answer of a Hub. ${advice} Found:${listSome(issues)}`,
  );
}
