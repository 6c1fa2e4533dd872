import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A file as the test gives it; `lfs` ones are served by the second server. */
export interface HubFile {
  readonly bytes: Uint8Array;
  readonly lfs: boolean;
}

/** A request as it arrived. */
export interface SeenRequest {
  readonly server: "hub" | "cdn";
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Answers instead of the server and returns true, or leaves it to it. */
type Intercept = (request: SeenRequest, response: ServerResponse) => boolean;

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
export const gitHash = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
export const digestOf = ({ bytes, lfs }: HubFile): string => (lfs ? sha256(bytes) : gitHash(bytes));

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** Objects as JSON, texts and bytes as they are; names that end in .bin or .safetensors are stored apart. */
export function filesOf(contents: Record<string, unknown>): Map<string, HubFile> {
  const bytes = (value: unknown): Uint8Array => {
    if (value instanceof Uint8Array) return value;
    return Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
  };
  return new Map(
    Object.entries(contents).map(([path, value]) => [
      path,
      { bytes: bytes(value), lfs: /\.(?:bin|safetensors)$/.test(path) },
    ]),
  );
}

/** What huggingface.co says of models, on one port, and the store of its large files on another. */
export class FakeHub {
  /** Revision or commit → commit. */
  readonly refs = new Map([["main", COMMIT]]);
  readonly commits = new Map<string, Map<string, HubFile>>();
  readonly requests: SeenRequest[] = [];
  intercept: Intercept = () => false;
  /** Changes the entries of the list of files. */
  tamper: (entry: Record<string, unknown>) => Record<string, unknown> = (entry) => entry;
  pageSize = 1000;
  /** Addresses of the two servers; they stay when those are closed. */
  url = "";
  cdnUrl = "";
  readonly #hubServer = this.#serve("hub");
  readonly #cdnServer = this.#serve("cdn");

  private constructor(
    readonly repo: string,
    files: Map<string, HubFile>,
  ) {
    this.commits.set(COMMIT, files);
  }

  static async start(repo: string, contents: Record<string, unknown>): Promise<FakeHub> {
    const hub = new FakeHub(repo, filesOf(contents));
    for (const server of [hub.#hubServer, hub.#cdnServer]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    hub.url = addressOf(hub.#hubServer);
    hub.cdnUrl = addressOf(hub.#cdnServer);
    return hub;
  }

  /** The bytes that were asked for, file by file: "path" or "path from byte". */
  downloads(): string[] {
    return this.requests
      .filter(({ method, path }) => method === "GET" && path.includes("/resolve/"))
      .map(({ path, range }) => {
        const file = path.replace(/^.*\/resolve\/[^/]+\//, "");
        return range === undefined ? file : `${file} ${range}`;
      });
  }

  async close(): Promise<void> {
    for (const server of [this.#hubServer, this.#cdnServer]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  #serve(name: "hub" | "cdn"): Server {
    return createServer((request, response) => {
      const seen = {
        server: name,
        method: request.method ?? "",
        path: request.url ?? "",
        range: request.headers.range,
        authorization: request.headers.authorization,
      };
      this.requests.push(seen);
      if (this.intercept(seen, response)) return;
      if (name === "cdn") this.#cdn(request, response);
      else this.#hub(request, response);
    });
  }

  #hub(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? "", this.url);
    const api = new RegExp(`^/api/models/${this.repo}/(revision|tree)/([^/]+)$`).exec(pathname);
    const file = new RegExp(`^/${this.repo}/resolve/([^/]+)/(.+)$`).exec(pathname);
    const revision = decodeURIComponent(api?.[2] ?? file?.[1] ?? "");
    const commit = this.refs.get(revision) ?? revision;
    const files = this.commits.get(commit);
    if (files) response.setHeader("x-repo-commit", commit);
    const found = files?.get(decodeURIComponent(file?.[2] ?? ""));
    if (!api && !file) refuse(response, 404, "RepoNotFound");
    else if (!files) refuse(response, 404, "RevisionNotFound");
    else if (api?.[1] === "revision") json(response, { id: this.repo, sha: commit });
    else if (api) this.#tree(response, files, Number(searchParams.get("cursor") ?? 0), pathname);
    else if (!found) refuse(response, 404, "EntryNotFound");
    else if (!found.lfs) send(request, response, found.bytes, { etag: `"${digestOf(found)}"` });
    else {
      response
        .writeHead(302, {
          location: `${this.cdnUrl}/${commit}/${digestOf(found)}?Signature=secret`,
          etag: '"of the redirect"',
          "x-linked-etag": `"${digestOf(found)}"`,
          "x-linked-size": found.bytes.length,
        })
        .end();
    }
  }

  #tree(response: ServerResponse, files: Map<string, HubFile>, from: number, pathname: string): void {
    const entries = [...files].map(([path, file]) => {
      const size = file.bytes.length;
      const lfs = { oid: digestOf(file), size, pointerSize: 130 };
      return this.tamper({ type: "file", path, size, oid: gitHash(file.bytes), ...(file.lfs && { lfs }) });
    });
    const to = from + this.pageSize;
    if (to < entries.length) {
      response.setHeader("link", `<${this.url}${pathname}?recursive=true&cursor=${to}>; rel="next"`);
    }
    const folders = [{ type: "directory", path: "transformer", size: 0, oid: "0".repeat(40) }];
    json(response, [...(from === 0 ? folders : []), ...entries.slice(from, to)]);
  }

  #cdn(request: IncomingMessage, response: ServerResponse): void {
    const [, commit = "", digest] = new URL(request.url ?? "", this.cdnUrl).pathname.split("/");
    const found = [...(this.commits.get(commit)?.values() ?? [])].find((file) => digestOf(file) === digest);
    if (found) send(request, response, found.bytes, { etag: '"of the store"' });
    else response.writeHead(404).end();
  }
}

const addressOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

export function json(response: ServerResponse, value: unknown): void {
  response.setHeader("content-type", "application/json").end(JSON.stringify(value));
}

export function refuse(response: ServerResponse, status: number, code?: string, headers = {}): void {
  if (code) response.setHeader("x-error-code", code);
  response.writeHead(status, headers).end("{}");
}

function send(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array, headers: object): void {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const rest = bytes.subarray(start);
  const range = { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
  response.writeHead(start > 0 ? 206 : 200, {
    ...headers,
    "accept-ranges": "bytes",
    "content-length": rest.length,
    ...(start > 0 && range),
  });
  response.end(request.method === "HEAD" ? undefined : rest);
}
