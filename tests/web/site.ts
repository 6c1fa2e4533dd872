import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
};

/** A page without a bundler. */
const PAGE = `<!doctype html><title>femo</title><link rel="icon" href="data:,">
<script type="module">import * as femo from "/femo/femo.js"; window.femo = femo;</script>`;

/** What a site may do to a request instead of answering it. True if it did. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface Site {
  readonly url: string;
  /** Paths that were asked for, with their Range if they had one. */
  readonly asked: string[];
  /** From now on. */
  fault: Fault | undefined;
  close(): Promise<void>;
}

/**
 * Serves folders, with ranges.
 * @param folders by the path that they are served under, the first that has a file counts; "" is the site itself
 * @param isolated with the headers that make pages isolated from other origins, without which they have no threads
 */
export async function serve(
  folders: readonly (readonly [path: string, folder: string])[],
  { isolated = false } = {},
): Promise<Site> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://site").pathname);
    const { range } = request.headers;
    asked.push(range === undefined ? path : `${path} ${range}`);
    if (isolated) {
      response.setHeader("cross-origin-opener-policy", "same-origin");
      response.setHeader("cross-origin-embedder-policy", "require-corp");
    }
    if (site.fault?.(request, response)) return;
    const file = find(folders, path);
    if (file === undefined) {
      response.writeHead(path === "/" ? 200 : 404, { "content-type": "text/html" });
      response.end(path === "/" ? PAGE : "");
      return;
    }
    const { size } = statSync(file);
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    const headers = {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-length": size - start,
      "cache-control": "no-cache",
      etag: `"${size}"`,
    };
    if (range !== undefined) {
      response.writeHead(206, { ...headers, "content-range": `bytes ${start}-${size - 1}/${size}` });
    } else response.writeHead(200, headers);
    if (request.method === "HEAD") response.end();
    else createReadStream(file, { start }).pipe(response);
  });
  // A page may be busy for longer than the five seconds by default, and then ask on a connection that is closed meanwhile.
  server.keepAliveTimeout = 600_000;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const site: Site = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    asked,
    fault: undefined,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return site;
}

function find(folders: readonly (readonly [string, string])[], path: string): string | undefined {
  for (const [under, folder] of folders) {
    if (!path.startsWith(`/${under}`)) continue;
    const file = join(folder, normalize(path.slice(1 + under.length)));
    const index = join(file, "index.html");
    if (existsSync(file) && statSync(file).isFile()) return file;
    if (existsSync(index)) return index;
  }
  return undefined;
}
