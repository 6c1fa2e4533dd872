import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { femoError } from "../../weights/helpers.js";
import { CERTIFICATE, KEY } from "./certificate.js";
import { download, filesBelow, NEEDED, REPO, snapshotFolder, startHub, temporaryFolder } from "./setup.js";

const servers: { closeAllConnections(): void; close(): unknown }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** Passes a request on and its answer back. */
function forward(to: string, incoming: IncomingMessage, response: ServerResponse): void {
  const onward = request(to, { method: incoming.method, headers: incoming.headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.destroy());
  incoming.pipe(onward);
}

/** An HTTP proxy, which asks for user and password if it is given them; what it was asked for, in order. */
async function startProxy(password?: string) {
  const seen: string[] = [];
  const allowed = ({ headers }: IncomingMessage): boolean =>
    password === undefined ||
    headers["proxy-authorization"] === `Basic ${Buffer.from(`me:${password}`).toString("base64")}`;
  const server = createServer((incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url}`);
    if (allowed(incoming)) forward(incoming.url ?? "", incoming, response);
    else response.writeHead(407).end();
  });
  server.on("connect", (incoming, socket, head) => {
    seen.push(`CONNECT ${incoming.url}`);
    if (!allowed(incoming)) return socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    const { hostname, port } = new URL(`http://${incoming.url}`);
    const onward = connect(Number(port), hostname, () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    onward.on("error", () => socket.destroy());
    socket.on("error", () => onward.destroy());
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  servers.push(server);
  return { seen, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** The same as a server, but with TLS and a certificate that nobody knows. */
async function behindTls(url: string): Promise<string> {
  const server = createTlsServer({ key: KEY, cert: CERTIFICATE }, (incoming, response) =>
    forward(url + incoming.url, incoming, response),
  );
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  servers.push(server);
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe("a proxy for http", () => {
  test.each(["HTTP_PROXY", "http_proxy"])("%s: everything goes through it", async (variable) => {
    const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy()];
    await download(hub, cache, { env: { [variable]: `http://${proxy.host}` } });
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    expect(proxy.seen).toHaveLength(hub.requests.length);
    expect(proxy.seen).toContain(`GET ${hub.url}/api/models/${REPO}/revision/main`);
    expect(proxy.seen.filter((line) => line.includes(hub.cdnUrl))).toHaveLength(1);
  });

  test.each(["NO_PROXY", "no_proxy"])("%s: nothing does of the hosts it names", async (variable) => {
    const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy()];
    await download(hub, cache, { env: { HTTP_PROXY: proxy.host, [variable]: "example.com,127.0.0.1" } });
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    expect(proxy.seen).toEqual([]);
  });

  test("HTTPS_PROXY alone does not concern it", async () => {
    const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy()];
    await download(hub, cache, { env: { HTTPS_PROXY: proxy.host } });
    expect(proxy.seen).toEqual([]);
  });

  test("user and password of its address are sent to it", async () => {
    const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy("s%cret")];
    await download(hub, cache, { env: { HTTP_PROXY: `http://me:s%25cret@${proxy.host}` } });
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    const message = await femoError("E_NETWORK", () =>
      download(hub, temporaryFolder(), { env: { HTTP_PROXY: `http://me:wrong@${proxy.host}` } }),
    );
    expect(message).not.toContain("wrong");
  });

  test("one that is not there is named as a place to look", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const message = await femoError("E_NETWORK", () => download(hub, cache, { env: { HTTP_PROXY: "127.0.0.1:1" } }));
    expect(message).toMatch(/ECONNREFUSED.*Check the network and the proxy \(HTTP_PROXY\)/);
    expect(hub.requests).toEqual([]);
  });
});

describe("https", () => {
  test("a certificate that is not trusted: the error says so at once, and what to set", async () => {
    const hub = await startHub();
    const HF_ENDPOINT = await behindTls(hub.url);
    const retry = { attempts: 5, firstDelayMs: 60_000 };
    const message = await femoError("E_NETWORK", () =>
      download(hub, temporaryFolder(), { env: { HF_ENDPOINT }, retry }),
    );
    expect(message).toMatch(/certificate is not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\).*NODE_EXTRA_CA_CERTS/);
    expect(hub.requests).toEqual([]);
  });

  test("a certificate that is not trusted: a copy is good all the same", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    const HF_ENDPOINT = await behindTls(hub.url);
    expect(await download(hub, cache, { env: { HF_ENDPOINT } })).toBe(snapshotFolder(cache));
  });

  const script =
    `import { downloadFiles } from ${JSON.stringify(resolve("dist/platform/node/hub/index.js"))};\n` +
    `await downloadFiles({ repo: "${REPO}", revision: "main" }, { retry: { attempts: 1 } });`;
  /** In a process of its own, because Node reads NODE_EXTRA_CA_CERTS when it starts. */
  const run = (env: Record<string, string>) =>
    promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env: { ...process.env, ...env } });

  test.each(["HTTPS_PROXY", "https_proxy"])(
    "%s: through a tunnel, to a server whose authority was named",
    async (name) => {
      const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy("secret")];
      const HF_ENDPOINT = await behindTls(hub.url);
      const NODE_EXTRA_CA_CERTS = join(cache, "authority.pem");
      writeFileSync(NODE_EXTRA_CA_CERTS, CERTIFICATE);
      const env = { HF_ENDPOINT, HF_HOME: cache, NODE_EXTRA_CA_CERTS, [name]: `http://me:secret@${proxy.host}` };
      expect(await run(env)).toEqual({ stdout: "", stderr: "" });
      expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
      expect(new Set(proxy.seen)).toEqual(new Set([`CONNECT ${new URL(HF_ENDPOINT).host}`]));
    },
  );

  test("a proxy that refuses the tunnel is quoted", async () => {
    const [hub, cache, proxy] = [await startHub(), temporaryFolder(), await startProxy("secret")];
    const HF_ENDPOINT = await behindTls(hub.url);
    const message = await femoError("E_NETWORK", () =>
      download(hub, cache, { env: { HF_ENDPOINT, HTTPS_PROXY: proxy.host } }),
    );
    expect(message).toMatch(/Proxy response \(407\).*the proxy \(HTTPS_PROXY\)/);
  });
});
