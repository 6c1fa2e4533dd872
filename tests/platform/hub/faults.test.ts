import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, utimesSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { femoError } from "../../weights/helpers.js";
import { COMMIT, filesOf, type HubFile, refuse, type SeenRequest, sha256 } from "./server.js";
import {
  BIG,
  download,
  filesBelow,
  NEEDED,
  PIPELINE,
  partials,
  REPO,
  repositoryFolder,
  snapshotFolder,
  startHub,
  temporaryFolder,
  weights,
} from "./setup.js";

const big = PIPELINE[BIG];
const digest = sha256(big);
const select = async () => [BIG];
const isWhole = (cache: string): boolean => readFileSync(join(snapshotFolder(cache), BIG)).equals(big);

/** Answers the first `times` requests that match. */
function times(count: number, path: RegExp, answer: (response: ServerResponse, request: SeenRequest) => void) {
  let left = count;
  return (request: SeenRequest, response: ServerResponse): boolean => {
    if (left === 0 || !path.test(request.path)) return false;
    left--;
    answer(response, request);
    return true;
  };
}

/** Promises all bytes from where the range starts, sends so many and, when they have arrived, cuts the connection. */
function cutAfter(bytes: number, cache: string) {
  const arrived = (size: number): boolean => {
    const blobs = join(repositoryFolder(cache), "blobs");
    return partials(cache).some((name) => (statSync(join(blobs, name), { throwIfNoEntry: false })?.size ?? 0) >= size);
  };
  return async (response: ServerResponse, { range }: SeenRequest): Promise<void> => {
    const start = Number(/\d+/.exec(range ?? "")?.[0] ?? 0);
    const headers = { "content-range": `bytes ${start}-${big.length - 1}/${big.length}` };
    response.writeHead(start > 0 ? 206 : 200, { ...headers, "content-length": big.length - start });
    response.write(big.subarray(start, start + bytes));
    while (!response.destroyed && !arrived(start + bytes)) await sleep(5);
    response.destroy();
  };
}

/** Sends so many bytes and then nothing. */
const stallAfter = (bytes: number) => (response: ServerResponse) => {
  response.writeHead(200, { "content-length": big.length });
  response.write(big.subarray(0, bytes));
};

describe("connections that break", () => {
  test("the rest is asked for, and the whole is right", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), cutAfter(100_000, cache));
    await download(hub, cache, { select });
    expect(isWhole(cache)).toBe(true);
    const ranges = hub.requests.filter(({ server }) => server === "cdn").map(({ range }) => range);
    expect(ranges).toEqual([undefined, "bytes=100000-"]);
    expect(partials(cache)).toEqual([]);
  });

  test("again and again: attempts count anew when something came", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(8, new RegExp(digest), cutAfter(30_000, cache));
    await download(hub, cache, { select, retry: { attempts: 2, firstDelayMs: 1 } });
    expect(isWhole(cache)).toBe(true);
  });

  test("for good: an error, and the next download goes on from there", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    let requests = 0;
    hub.intercept = ({ path, range }, response) => {
      if (!path.includes(digest)) return false;
      if (requests++ === 0) cutAfter(120_000, cache)(response, { range } as SeenRequest);
      else response.destroy();
      return true;
    };
    const message = await femoError("E_NETWORK", () => download(hub, cache, { select }));
    expect(message).toMatch(/connection failed.*what is there already is kept/);
    expect(message).not.toContain("Signature");
    expect(requests).toBe(5);
    expect(filesBelow(repositoryFolder(cache)).size).toBe(1);
    expect(partials(cache)).toEqual([`${digest}.femo.incomplete`]);

    hub.intercept = () => false;
    hub.requests.length = 0;
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([`${BIG} bytes=120000-`]);
    expect(isWhole(cache)).toBe(true);
    expect(partials(cache)).toEqual([]);
  });

  test("a server that falls silent counts as gone", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), stallAfter(50_000));
    await download(hub, cache, { select, env: { HF_HUB_DOWNLOAD_TIMEOUT: "2" } });
    expect(isWhole(cache)).toBe(true);
    expect(hub.downloads()).toEqual([BIG, `${BIG} bytes=50000-`]);
  });

  test("a server that ends early without a word", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), (response) => response.end(big.subarray(0, 1000)));
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([BIG, `${BIG} bytes=1000-`]);
    expect(isWhole(cache)).toBe(true);
  });

  test("a server that serves no parts: the file starts anew", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = (request, response) => {
      if (!request.path.includes(digest)) return false;
      if (request.range === undefined) cutAfter(1000, cache)(response, request);
      else response.end(big);
      return true;
    };
    await download(hub, cache, { select });
    expect(isWhole(cache)).toBe(true);
  });

  test("a server that serves no parts and always breaks: it ends", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(100, new RegExp(digest), (response) =>
      cutAfter(1000, cache)(response, { range: undefined } as SeenRequest),
    );
    await femoError("E_NETWORK", () => download(hub, cache, { select }));
    expect(hub.downloads().length).toBeLessThan(10);
  });

  test.each([
    ["another part", 206, { "content-range": `bytes 5-${big.length - 1}/${big.length}` }],
    ["no such part", 416, { "content-range": "bytes */5" }],
  ])("a server that answers with %s: the file starts anew", async (_, status, headers) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = (request, response) => {
      if (!request.path.includes(digest)) return false;
      if (hub.downloads().length === 1) cutAfter(1000, cache)(response, request);
      else if (request.range === undefined) return false;
      else response.writeHead(status, headers).end("other");
      return true;
    };
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([BIG, `${BIG} bytes=1000-`, BIG]);
    expect(isWhole(cache)).toBe(true);
  });
});

describe("bytes that are not those of the file", () => {
  const other = Uint8Array.from(big, (byte) => byte ^ 1);

  test.each([
    ["as many, but others", other],
    ["more", Uint8Array.from([...big, 1])],
  ])("%s: once is forgiven", async (_, bytes) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), (response) => response.end(bytes));
    await download(hub, cache, { select });
    expect(isWhole(cache)).toBe(true);
  });

  test.each([
    ["as many, but others", other, "other bytes"],
    ["more", Uint8Array.from([...big, 1]), "more bytes"],
  ])("%s, always: an error with the hash, and nothing is kept", async (_, bytes, found) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(100, new RegExp(digest), (response) => response.end(bytes));
    const message = await femoError("E_FILE", () => download(hub, cache, { select }));
    expect(message).toContain(
      `${REPO}/${BIG}: expected ${big.length} bytes with the SHA-256 ${digest}, found ${found}`,
    );
    expect(hub.downloads()).toHaveLength(2);
    expect(readdirSync(join(repositoryFolder(cache), "blobs"))).toEqual([]);
  });

  test("a small file has git's hash", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const length = JSON.stringify(PIPELINE["model_index.json"]).length;
    hub.intercept = times(100, /resolve.*model_index/, (response) => response.end("x".repeat(length)));
    expect(await femoError("E_FILE", () => download(hub, cache))).toContain("the git hash");
    expect(readdirSync(join(repositoryFolder(cache), "blobs"))).toEqual([]);
  });

  test("what an earlier download left is checked too", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const blobs = join(repositoryFolder(cache), "blobs");
    mkdirSync(blobs, { recursive: true });
    writeFileSync(join(blobs, `${digest}.femo.incomplete`), other.subarray(0, 1000));
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([`${BIG} bytes=1000-`, BIG]);
    expect(isWhole(cache)).toBe(true);
  });
});

describe("cancelling", () => {
  test("before: nothing is asked for", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(download(hub, cache, { signal })).rejects.toThrow("enough");
    expect(hub.requests).toEqual([]);
  });

  test("in the middle of a file: the reason is thrown, what came is kept, and the next download goes on", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), stallAfter(60_000));
    const controller = new AbortController();
    const reason = new Error("enough");
    const onProgress = ({ bytesDone }: { bytesDone: number }) => bytesDone === 60_000 && controller.abort(reason);
    await expect(download(hub, cache, { select, signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(partials(cache)).toEqual([`${digest}.femo.incomplete`]);
    expect(filesBelow(repositoryFolder(cache)).size).toBe(1);
    hub.requests.length = 0;
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([`${BIG} bytes=60000-`]);
    expect(isWhole(cache)).toBe(true);
  });

  test("between two attempts: it does not wait for the next", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const controller = new AbortController();
    hub.intercept = times(1, /tree/, (response) => {
      refuse(response, 429, undefined, { "retry-after": "200" });
      setTimeout(() => controller.abort(new Error("enough")), 300);
    });
    await expect(download(hub, cache, { signal: controller.signal })).rejects.toThrow("enough");
  });
});

describe("servers in trouble", () => {
  test.each([408, 429, 500, 502, 503, 504])("%i and then an answer", async (status) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const seen: Record<string, number> = {};
    hub.intercept = ({ path }, response) => {
      seen[path] = (seen[path] ?? 0) + 1;
      if (seen[path] === 1) refuse(response, status);
      return seen[path] === 1;
    };
    await download(hub, cache, { select });
    expect(isWhole(cache)).toBe(true);
    expect(Object.keys(seen)).toHaveLength(4); // revision, list, file, its store
  });

  test("Retry-After is obeyed", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    let nearly = false;
    hub.intercept = times(1, /revision/, (response) => {
      refuse(response, 429, undefined, { "retry-after": "1" });
      setTimeout(() => {
        nearly = true;
      }, 900); // before the second is over: timers go off in order, however slow the machine
    });
    await download(hub, cache, { select });
    expect(nearly).toBe(true);
  });

  test("a wait of hours is not: the error says so at once", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = (_, response) => {
      refuse(response, 429, undefined, { "retry-after": "7200" });
      return true;
    };
    expect(await femoError("E_NETWORK", () => download(hub, cache))).toMatch(/answered 429.*Try again later/);
    expect(hub.requests).toHaveLength(1);
  });

  test("always: an error after five attempts", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = (_, response) => {
      refuse(response, 503);
      return true;
    };
    expect(await femoError("E_NETWORK", () => download(hub, cache))).toContain("answered 503");
    expect(hub.requests).toHaveLength(5);
  });
});

describe("several downloads", () => {
  test("at once, of the same files: each gets them whole, and each file is fetched once", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const snapshots = await Promise.all([1, 2, 3, 4, 5].map(() => download(hub, cache)));
    expect(new Set(snapshots)).toEqual(new Set([snapshotFolder(cache)]));
    expect(hub.downloads().sort()).toEqual([...NEEDED].sort());
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    expect(isWhole(cache)).toBe(true);
    expect(partials(cache)).toEqual([]);
  });

  test("one that is aborted leaves the rest to another, and one that waits can be aborted", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = times(1, new RegExp(digest), stallAfter(60_000));
    const [first, second] = [new AbortController(), new AbortController()];
    let running = Promise.resolve("");
    // The others start when it has the file, so that it is the one they wait for.
    await new Promise<void>((resolve) => {
      const onProgress = ({ bytesDone }: { bytesDone: number }) => bytesDone >= 60_000 && resolve();
      running = download(hub, cache, { select, signal: first.signal, onProgress });
    });
    const waiting = download(hub, cache, { select, signal: second.signal });
    const patient = download(hub, cache, { select });
    setTimeout(() => second.abort(new Error("tired of waiting")), 50);
    setTimeout(() => first.abort(new Error("enough")), 100);
    await Promise.all([
      expect(running).rejects.toThrow("enough"),
      expect(waiting).rejects.toThrow("tired of waiting"),
      patient,
    ]);
    expect(hub.downloads()).toEqual([BIG, `${BIG} bytes=60000-`]);
    expect(isWhole(cache)).toBe(true);
  });

  test.each(["0", "1"])(
    "by two processes at once, HF_HUB_DISABLE_SYMLINKS=%s: both get them whole",
    async (disabled) => {
      const [hub, cache] = [await startHub(), temporaryFolder()];
      const script =
        `import { downloadFiles } from ${JSON.stringify(resolve("dist/platform/node/hub/index.js"))};\n` +
        `console.log(await downloadFiles({ repo: "${REPO}", revision: "main" }));`;
      const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: cache, HF_HUB_DISABLE_SYMLINKS: disabled };
      const run = promisify(execFile);
      const outputs = await Promise.all(
        [1, 2, 3].map(() => run(process.execPath, ["--input-type=module", "-e", script], { env })),
      );
      expect(new Set(outputs.map(({ stdout }) => stdout))).toEqual(new Set([`${snapshotFolder(cache)}\n`]));
      expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
      expect(isWhole(cache)).toBe(true);
      expect(partials(cache)).toEqual([]);
    },
  );

  test("of several that could go on, one does", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const blobs = join(repositoryFolder(cache), "blobs");
    mkdirSync(blobs, { recursive: true });
    writeFileSync(join(blobs, `${digest}.femo.incomplete`), big.subarray(0, 1000));
    await Promise.all([1, 2].map(() => download(hub, cache, { select })));
    expect(hub.downloads()).toEqual([`${BIG} bytes=1000-`]);
    expect(isWhole(cache)).toBe(true);
  });

  /** Leaves the partial file of a download that is stopped in the middle, as if its process were `pid`. */
  async function leave(cache: string, pid: number): Promise<string> {
    const hub = await startHub();
    hub.intercept = times(1, new RegExp(digest), stallAfter(60_000));
    const controller = new AbortController();
    let name = "";
    const onProgress = ({ bytesDone }: { bytesDone: number }) => {
      if (bytesDone < 60_000) return;
      name = partials(cache)[0] ?? "";
      controller.abort();
    };
    await expect(download(hub, cache, { select, signal: controller.signal, onProgress })).rejects.toThrow();
    const blobs = join(repositoryFolder(cache), "blobs");
    const left = name.replace(`-${process.pid}-`, `-${pid}-`);
    renameSync(join(blobs, `${digest}.femo.incomplete`), join(blobs, left));
    return join(blobs, left);
  }

  test("after a crash: what the dead process left is taken over", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await leave(cache, 2 ** 22 + 1); // above what Linux gives
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([`${BIG} bytes=60000-`]);
    expect(partials(cache)).toEqual([]);
  });

  test("what a living process is writing is left alone", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const path = await leave(cache, process.ppid);
    await download(hub, cache, { select });
    expect(hub.downloads()).toEqual([BIG]);
    expect(readFileSync(path)).toHaveLength(60_000);
  });

  test("an earlier process of the same number is not this one", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const path = await leave(cache, process.pid);
    await download(hub, cache, { select, retry: {} });
    expect(hub.downloads()).toEqual([BIG]);
    const yesterday = Date.now() / 1000 - 86_400;
    utimesSync(path, yesterday, yesterday);
    const next = "f".repeat(40);
    hub.commits.set(next, hub.commits.get(COMMIT) as Map<string, HubFile>);
    hub.requests.length = 0;
    const blob = join(repositoryFolder(cache), "blobs", digest);
    renameSync(blob, `${blob}.away`);
    await download(hub, cache, { select, revision: next });
    expect(hub.downloads()).toEqual([`${BIG} bytes=60000-`]);
  });
});

test("files of the same bytes are downloaded and stored once", async () => {
  const contents = { "a.bin": weights(1000), "b.bin": weights(1000) };
  const [hub, cache] = [await startHub(contents), temporaryFolder()];
  await download(hub, cache, { select: async () => [...filesOf(contents).keys()] });
  expect(hub.downloads()).toEqual(["a.bin"]);
  expect(readdirSync(join(repositoryFolder(cache), "blobs"))).toEqual([sha256(weights(1000))]);
});
