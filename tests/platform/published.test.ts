import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { findFile } from "../../src/platform/node/published.js";
import type { PublishedFile } from "../../src/platform/platform.js";
import { femoError } from "../weights/helpers.js";
import { sha256 } from "./hub/server.js";
import { environment, REPO, startHub, temporaryFolder, weights } from "./hub/setup.js";

const bytes = weights(300_000);
const retry = { firstDelayMs: 1 };

/** A server that may end its first answers early. */
async function serve(content: Uint8Array, { cut = 0, status = 200 } = {}) {
  const ranges: (string | undefined)[] = [];
  let left = cut;
  const server = createServer((request, response) => {
    const range = request.headers.range;
    ranges.push(range);
    if (status !== 200) return response.writeHead(status).end();
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    const part = content.subarray(start);
    const more = range ? { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` } : {};
    response.writeHead(range ? 206 : 200, { "content-length": part.length, ...more });
    if (left-- > 0) return response.write(part.subarray(0, part.length >> 1), () => response.destroy());
    return response.end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/net.pth`, ranges };
}

const published = (url: string, digest = sha256(bytes)): PublishedFile => ({
  name: "net.pth",
  sha256: digest,
  from: { url },
});

test("a file comes from its address once, goes on where it stopped, and is told by its hash", async () => {
  const cacheDir = temporaryFolder();
  const { url, ranges } = await serve(bytes, { cut: 2 });
  const seen: number[] = [];
  const options = { cacheDir, onProgress: ({ bytesDone }: { bytesDone: number }) => seen.push(bytesDone) };
  const found = await findFile(published(url, sha256(bytes).slice(0, 8)), options, { env: {}, retry });
  expect(found.sha256).toBe(sha256(bytes));
  const source = await found.folder.open(found.path);
  expect(Buffer.from(await source.read(0, source.size)).equals(bytes)).toBe(true);
  await source.close();
  expect(ranges[0]).toBeUndefined();
  expect(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range as string))).toBe(true);
  expect(seen.at(-1)).toBe(bytes.length);
  const before = ranges.length;
  await findFile(published(url), { cacheDir }, { env: {}, retry });
  expect(ranges).toHaveLength(before);
  expect(readdirSync(cacheDir)).toEqual(["net.pth"]);
});

test("other bytes than were published are not kept", async () => {
  const cacheDir = temporaryFolder();
  const { url } = await serve(bytes.subarray(1));
  const message = await femoError("E_FILE", () => findFile(published(url), { cacheDir }, { env: {}, retry }));
  expect(message).toContain("SHA-256 is another");
  expect(readdirSync(cacheDir)).not.toContain("net.pth");
});

test("what is not there, refused, or forbidden to ask for, is said", async () => {
  const cacheDir = temporaryFolder();
  const missing = await serve(bytes, { status: 404 });
  expect(await femoError("E_FILE", () => findFile(published(missing.url), { cacheDir }, { env: {}, retry }))).toContain(
    "404",
  );
  const refused = await serve(bytes, { status: 403 });
  expect(
    await femoError("E_ACCESS", () => findFile(published(refused.url), { cacheDir }, { env: {}, retry })),
  ).toContain("by hand");
  const busy = await serve(bytes, { status: 503 });
  expect(await femoError("E_NETWORK", () => findFile(published(busy.url), { cacheDir }, { env: {}, retry }))).toContain(
    "503",
  );
  const env = { HF_HUB_OFFLINE: "1" };
  expect(await femoError("E_FILE", () => findFile(published(busy.url), { cacheDir }, { env, retry }))).toContain(
    "HF_HUB_OFFLINE",
  );
  const reason = new Error("enough");
  await expect(
    findFile(published(busy.url), { cacheDir, signal: AbortSignal.abort(reason) }, { env: {}, retry }),
  ).rejects.toBe(reason);
});

test("a file of a folder, or by itself, needs no network", async () => {
  const folder = temporaryFolder();
  const file = published("https://example.org/net.pth");
  expect(await femoError("E_FILE", () => findFile(file, { at: folder }))).toContain(
    "Get it from https://example.org/net.pth",
  );
  expect(await femoError("E_FILE", () => findFile(file, { at: join(folder, "no") }))).toContain(
    "no such file or folder",
  );
  writeFileSync(join(folder, "net.pth"), bytes);
  expect((await findFile(file, { at: folder })).path).toBe("net.pth");
  mkdirSync(join(folder, "more"));
  writeFileSync(join(folder, "more", "renamed.bin"), bytes);
  expect((await findFile(file, { at: join(folder, "more", "renamed.bin") })).path).toBe("renamed.bin");
  writeFileSync(join(folder, "net.pth"), bytes.subarray(1));
  const message = await femoError("E_FILE", () => findFile(file, { at: folder }));
  expect(message).toContain(`expected net.pth with the SHA-256 ${sha256(bytes)}`);
});

test("a file of a repository on the Hub, and of the package", async () => {
  const hub = await startHub({ "ImageReward.pt": bytes });
  const cache = temporaryFolder();
  const file: PublishedFile = { name: "ImageReward.pt", sha256: sha256(bytes), from: { hub: REPO } };
  const found = await findFile(file, {}, { env: environment(hub, cache), retry });
  expect(found.sha256).toBe(sha256(bytes));
  const alex: PublishedFile = { name: "alex.pth", sha256: "df73285e", from: { embedded: "lpips" } };
  expect((await findFile(alex)).path).toBe("alex.pth");
});
