import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openHubModel } from "../../../src/platform/node/hub/index.js";
import type { DownloadProgress } from "../../../src/platform/platform.js";
import {
  componentFiles,
  type FolderSource,
  openCheckpoint,
  openModelFolder,
  pipelineFiles,
} from "../../../src/weights/index.js";
import { femoError } from "../../weights/helpers.js";
import { COMMIT, digestOf, filesOf, gitHash, refuse, sha256 } from "./server.js";
import {
  BIG,
  download,
  environment,
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

const files = filesOf(PIPELINE);
const bytesOf = (path: string): Uint8Array => files.get(path)?.bytes ?? new Uint8Array(0);

describe("a pipeline", () => {
  test("its needed files and no others, in the layout of huggingface_hub", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const snapshot = await download(hub, cache);
    expect(snapshot).toBe(snapshotFolder(cache));
    expect([...filesBelow(snapshot).keys()].sort()).toEqual([...NEEDED].sort());
    for (const path of NEEDED) {
      const file = files.get(path) ?? { bytes: new Uint8Array(0), lfs: false };
      expect(readFileSync(join(snapshot, path)).equals(file.bytes)).toBe(true);
      const up = "../".repeat(path.split("/").length + 1);
      expect(readlinkSync(join(snapshot, path))).toBe(`${up}blobs/${digestOf(file)}`);
    }
    expect(readFileSync(join(repositoryFolder(cache), "refs/main"), "utf8")).toBe(COMMIT);
    expect(hub.downloads().sort()).toEqual([...NEEDED].sort());
    expect(partials(cache)).toEqual([]);
  });

  test("opens as a model folder under the model's name; weights are located in the blobs", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const folder = await openHubModel({ repo: REPO, revision: "main" }, { env: environment(hub, cache) });
    expect(folder.name).toBe(REPO);
    expect(folder.resolve(BIG)).toBe(join(repositoryFolder(cache), "blobs", sha256(bytesOf(BIG))));
    const model = await openModelFolder(folder);
    expect(await model.config("scheduler")).toEqual(PIPELINE["scheduler/scheduler_config.json"]);
  });

  test("a second time: nothing but the revision's commit is asked for", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.requests.length = 0;
    const progress: DownloadProgress[] = [];
    await download(hub, cache, { onProgress: (now) => progress.push(now) });
    expect(hub.requests.map(({ path }) => path)).toEqual([`/api/models/${REPO}/revision/main`]);
    expect(progress).toEqual([]);
    hub.requests.length = 0;
    expect(await download(hub, cache, { revision: COMMIT })).toBe(snapshotFolder(cache));
    expect(hub.requests).toEqual([]);
  });

  test("a new commit: only what has changed is fetched, and the old snapshot stays", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    const next = "f".repeat(40);
    hub.commits.set(next, filesOf({ ...PIPELINE, "transformer/config.json": { changed: true } }));
    hub.refs.set("main", next);
    hub.requests.length = 0;
    let troubles = 0; // a copy at hand is no reason to give up sooner
    hub.intercept = ({ path }, response) => {
      if (!path.includes("/resolve/") || troubles++ > 0) return false;
      refuse(response, 503);
      return true;
    };
    const snapshot = await download(hub, cache);
    expect(snapshot).toBe(snapshotFolder(cache, next));
    expect(hub.downloads()).toEqual(["transformer/config.json", "transformer/config.json"]);
    expect(filesBelow(snapshot).get("transformer/config.json")).toEqual(
      Uint8Array.from(Buffer.from('{"changed":true}')),
    );
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
  });

  test("a branch with a slash in its name", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.refs.set("refs/pr/1", COMMIT);
    await download(hub, cache, { revision: "refs/pr/1" });
    expect(readFileSync(join(repositoryFolder(cache), "refs/refs/pr/1"), "utf8")).toBe(COMMIT);
  });

  test("a list of files over several pages", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.pageSize = 2;
    expect(filesBelow(await download(hub, cache)).size).toBe(NEEDED.length);
  });

  test("progress over all files, from what is there to the end", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const seen: DownloadProgress[] = [];
    await download(hub, cache, { onProgress: (now) => seen.push(now) });
    const total = NEEDED.reduce((sum, path) => sum + bytesOf(path).length, 0);
    expect(new Set(seen.map(({ bytesTotal }) => bytesTotal))).toEqual(new Set([total]));
    expect(seen.map(({ bytesDone }) => bytesDone)).toEqual(
      seen.map(({ bytesDone }) => bytesDone).sort((a, b) => a - b),
    );
    expect(seen.at(0)?.bytesDone).toBe(bytesOf("model_index.json").length); // it was fetched to know what is needed
    expect(seen.at(-1)).toMatchObject({ model: REPO, bytesDone: total });
    expect(new Set(seen.map(({ file }) => file))).toEqual(new Set(NEEDED.slice(1)));
  });

  test("a file with characters that addresses must escape, and an empty one", async () => {
    const odd = "odd #1 100%?.txt";
    const [hub, cache] = [await startHub({ [odd]: "bytes", empty: "" }), temporaryFolder()];
    const snapshot = await download(hub, cache, { select: async () => [odd, "empty"] });
    expect(readFileSync(join(snapshot, odd), "utf8")).toBe("bytes");
    expect(readFileSync(join(snapshot, "empty"), "utf8")).toBe("");
  });
});

describe("a cache that Python has filled", () => {
  /** As `hf_hub_download` leaves it. */
  function fill(cache: string, paths: readonly string[], commit = COMMIT): void {
    const folder = repositoryFolder(cache);
    mkdirSync(join(folder, "blobs"), { recursive: true });
    mkdirSync(join(folder, "refs"), { recursive: true });
    writeFileSync(join(folder, "refs/main"), commit);
    for (const path of paths) {
      const file = files.get(path);
      if (!file) throw new Error(path);
      writeFileSync(join(folder, "blobs", digestOf(file)), file.bytes);
      const link = join(folder, "snapshots", commit, path);
      mkdirSync(join(link, ".."), { recursive: true });
      symlinkSync(`${"../".repeat(path.split("/").length + 1)}blobs/${digestOf(file)}`, link);
    }
  }

  test("whole: nothing is downloaded", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    fill(cache, NEEDED);
    expect(await download(hub, cache)).toBe(snapshotFolder(cache));
    expect(hub.downloads()).toEqual([]);
  });

  test("in part: the rest is downloaded", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    fill(cache, [BIG, "model_index.json"]);
    await download(hub, cache);
    expect(hub.downloads().sort()).toEqual(NEEDED.filter((path) => path.endsWith("config.json")).sort());
  });

  test("of another commit with the same files: they are linked", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    fill(cache, NEEDED, "e".repeat(40));
    await download(hub, cache);
    expect(hub.downloads()).toEqual([]);
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    expect(readFileSync(join(repositoryFolder(cache), "refs/main"), "utf8")).toBe(COMMIT);
  });

  test("with a truncated blob: it is downloaded again", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    fill(cache, [BIG]);
    writeFileSync(join(repositoryFolder(cache), "blobs", sha256(bytesOf(BIG))), "short");
    const snapshot = await download(hub, cache);
    expect(readFileSync(join(snapshot, BIG)).equals(bytesOf(BIG))).toBe(true);
  });

  test("with a link to nothing: it is replaced", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    mkdirSync(snapshotFolder(cache), { recursive: true });
    symlinkSync("../../blobs/gone", join(snapshotFolder(cache), "model_index.json"));
    const snapshot = await download(hub, cache);
    expect(readFileSync(join(snapshot, "model_index.json")).equals(bytesOf("model_index.json"))).toBe(true);
  });
});

describe("where symbolic links are not to be", () => {
  const env = { HF_HUB_DISABLE_SYMLINKS: "1" };

  test("the snapshot has the files themselves", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const snapshot = await download(hub, cache, { env });
    for (const path of NEEDED) expect(lstatSync(join(snapshot, path)).isSymbolicLink()).toBe(false);
    expect(readFileSync(join(snapshot, BIG)).equals(bytesOf(BIG))).toBe(true);
    hub.requests.length = 0;
    await download(hub, cache, { env });
    expect(hub.downloads()).toEqual([]);
  });

  test("a blob that is there is copied, for others may link to it", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    const next = "f".repeat(40);
    hub.commits.set(next, filesOf(PIPELINE));
    await download(hub, cache, { env, revision: next });
    expect(lstatSync(join(snapshotFolder(cache, next), BIG)).isFile()).toBe(true);
    expect(readFileSync(join(snapshotFolder(cache), BIG)).equals(bytesOf(BIG))).toBe(true);
  });
});

describe("without the Hub", () => {
  test("HF_HUB_OFFLINE: what is in the cache, no request", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.requests.length = 0;
    expect(await download(hub, cache, { env: { HF_HUB_OFFLINE: "1" } })).toBe(snapshotFolder(cache));
    expect(hub.requests).toEqual([]);
  });

  test("HF_HUB_OFFLINE and not in the cache: the variable is named", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    const offline = () => download(hub, cache, { env: { HF_HUB_OFFLINE: "1" } });
    expect(await femoError("E_FILE", offline)).toMatch(/owner\/tiny: .*HF_HUB_OFFLINE.*never downloaded/);
    await download(hub, cache, { select: async () => ["model_index.json", "transformer/config.json"] });
    expect(await femoError("E_FILE", offline)).toMatch(
      /HF_HUB_OFFLINE.*missing: owner\/tiny: found no config of "scheduler"/,
    );
    expect(hub.requests.filter(({ path }) => path.includes(BIG))).toEqual([]);
  });

  test("a Hub that is down: what is in the cache, after one attempt", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.requests.length = 0;
    hub.intercept = (_, response) => {
      refuse(response, 503);
      return true;
    };
    expect(await download(hub, cache)).toBe(snapshotFolder(cache));
    expect(hub.requests).toHaveLength(1);
    await hub.close();
    expect(await download(hub, cache)).toBe(snapshotFolder(cache));
  });

  test("a Hub that refuses, as with an old token: what is in the cache; but a revision that is gone is an error", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.intercept = (_, response) => {
      refuse(response, 401);
      return true;
    };
    expect(await download(hub, cache, { env: { HF_TOKEN: "hf_old" } })).toBe(snapshotFolder(cache));
    hub.intercept = (_, response) => {
      refuse(response, 404, "RevisionNotFound");
      return true;
    };
    await femoError("E_FILE", () => download(hub, cache));
  });

  test.each<[string, number, string | undefined]>([
    ["has no such model any more", 404, "RepoNotFound"],
    ["has another API", 404, undefined],
    ["has gated it", 403, "GatedRepo"],
    ["is in trouble", 502, undefined],
    ["has other ideas", 418, undefined],
  ])("a Hub that %s: what is in the cache", async (_, status, code) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.intercept = (_, response) => {
      refuse(response, status, code);
      return true;
    };
    expect(await download(hub, cache)).toBe(snapshotFolder(cache));
  });

  test("a Hub that knows a newer commit, but does not give its files: what is in the cache", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    const next = "f".repeat(40);
    hub.commits.set(next, filesOf({ ...PIPELINE, "transformer/config.json": { changed: true } }));
    hub.refs.set("main", next);
    hub.intercept = ({ path }, response) => {
      if (!path.includes("/resolve/")) return false;
      refuse(response, 403, "GatedRepo");
      return true;
    };
    expect(await download(hub, cache)).toBe(snapshotFolder(cache));
    hub.intercept = () => false;
    expect(await download(hub, cache)).toBe(snapshotFolder(cache, next));
  });

  test("a disk that is full is no reason to take an older copy", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    const next = "f".repeat(40);
    hub.commits.set(next, filesOf({ ...PIPELINE, "transformer/config.json": { changed: true } }));
    hub.refs.set("main", next);
    writeFileSync(join(repositoryFolder(cache), "snapshots", next), "where a folder should be");
    await femoError("E_FILE", () => download(hub, cache));
  });

  test("a Hub that is silent: what is in the cache, within seconds of the thirty", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache);
    hub.requests.length = 0;
    hub.intercept = () => true;
    expect(await download(hub, cache, { signal: AbortSignal.timeout(20_000) })).toBe(snapshotFolder(cache));
    expect(hub.requests).toHaveLength(1);
  });

  test("a Hub that is down and nothing in the cache", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await hub.close();
    const message = await femoError("E_NETWORK", () => download(hub, cache));
    expect(message).toMatch(/the connection failed \(ECONNREFUSED\)\. Check the network/);
    expect(existsSync(join(cache, "hub"))).toBe(false);
  });
});

test("hashes: of the bytes for stored files, of git for others", () => {
  // `git hash-object` of an empty file and of "hello\n", and the SHA-256 of nothing.
  expect(gitHash(new Uint8Array(0))).toBe("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  expect(gitHash(Buffer.from("hello\n"))).toBe("ce013625030ba8dba906f756967f9e9ca394464a");
  expect(sha256(weights(0))).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
});

describe("a repository that has only a variant", () => {
  const half = "transformer/diffusion_pytorch_model.fp16.safetensors";
  const { [BIG]: bytes, "transformer/diffusion_pytorch_model.bin": _, ...others } = PIPELINE;
  const only = { ...others, [half]: bytes };

  test("is downloaded without being asked for it, and found again with and without the Hub", async () => {
    const [hub, cache] = [await startHub(only), temporaryFolder()];
    const snapshot = await download(hub, cache);
    expect(filesBelow(snapshot).has(half)).toBe(true);
    hub.requests.length = 0;
    for (const revision of ["main", COMMIT]) expect(await download(hub, cache, { revision })).toBe(snapshot);
    expect(await download(hub, cache, { env: { HF_HUB_OFFLINE: "1" } })).toBe(snapshot);
    expect(hub.downloads()).toEqual([]);
    await hub.close();
    for (const revision of ["main", COMMIT]) expect(await download(hub, cache, { revision })).toBe(snapshot);
  });

  test("a variant that was downloaded before does not stand for weights that were not", async () => {
    const [hub, cache] = [await startHub({ ...PIPELINE, [half]: bytes }), temporaryFolder()];
    const fp16 = (folder: FolderSource) => pipelineFiles(folder, { variant: "fp16" });
    expect(filesBelow(await download(hub, cache, { select: fp16 })).has(BIG)).toBe(false);
    for (const revision of ["main", COMMIT]) {
      expect(filesBelow(await download(hub, cache, { revision })).has(BIG)).toBe(true);
    }
  });
});

test("messages name the model by its id, not by where it is kept", async () => {
  const [hub, cache] = [await startHub({ ...PIPELINE, "transformer/config.json": "{" }), temporaryFolder()];
  const folder = await openHubModel({ repo: REPO, revision: "main" }, { env: environment(hub, cache) });
  const model = await openModelFolder(folder);
  for (const [code, action] of [
    ["E_CONFIG", () => model.config("transformer")],
    ["E_FILE", () => openCheckpoint(folder, BIG)],
  ] as const) {
    const message = await femoError(code, action);
    expect(message).toMatch(/^owner\/tiny\/transformer\//);
    expect(message).not.toContain(cache);
  }
});

test("a cache folder for this call alone", async () => {
  const [hub, cache, other] = [await startHub(), temporaryFolder(), temporaryFolder()];
  const snapshot = await download(hub, cache, { cacheDir: other });
  expect(snapshot).toBe(join(other, "models--owner--tiny/snapshots", COMMIT));
  expect(filesBelow(snapshot).size).toBe(NEEDED.length);
  expect(existsSync(join(cache, "hub"))).toBe(false);
});

test("a component published alone, by its place in the folder", async () => {
  const contents = { "README.md": "not needed", "config.json": {}, "diffusion_pytorch_model.bin": weights(1000) };
  const [hub, cache] = [await startHub(contents), temporaryFolder()];
  const snapshot = await download(hub, cache, { select: (folder) => componentFiles(folder, ".") });
  expect([...filesBelow(snapshot).keys()].sort()).toEqual(["config.json", "diffusion_pytorch_model.bin"]);
});
