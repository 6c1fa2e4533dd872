import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { femoError } from "../../weights/helpers.js";
import { type FakeHub, json, refuse } from "./server.js";
import {
  BIG,
  download,
  filesBelow,
  NEEDED,
  PIPELINE,
  REPO,
  repositoryFolder,
  snapshotFolder,
  startHub,
  temporaryFolder,
} from "./setup.js";

const TOKEN = "hf_verySecret";
const env = { HF_TOKEN: TOKEN };
const withToken = (hub: FakeHub) => hub.requests.filter(({ authorization }) => authorization === `Bearer ${TOKEN}`);

describe("the token", () => {
  test("goes to the Hub and does not follow a redirect to another server", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache, { env });
    const of = (server: string) => hub.requests.filter((request) => request.server === server);
    expect(withToken(hub)).toEqual(of("hub"));
    expect(of("cdn").length).toBeGreaterThan(0);
    expect(of("cdn").filter(({ authorization }) => authorization !== undefined)).toEqual([]);
  });

  test("that is an option goes in place of the environment's", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache, { env: { HF_TOKEN: "hf_other" }, token: TOKEN });
    expect(withToken(hub)).toEqual(hub.requests.filter(({ server }) => server === "hub"));
    hub.intercept = (_, response) => {
      refuse(response, 403, "GatedRepo");
      return true;
    };
    const message = await femoError("E_ACCESS", () => download(hub, temporaryFolder(), { token: TOKEN }));
    expect(message).toContain("The token in the option token was sent");
    expect(message).not.toContain(TOKEN);
  });

  test("is not sent to another server that continues the list of files either", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = ({ server, path }, response) => {
      if (server === "hub" && path.includes("/tree/")) {
        response.setHeader("link", `<${hub.cdnUrl}/more>; rel="next"`);
        json(response, []);
        return true;
      }
      if (path === "/more") json(response, []);
      return path === "/more";
    };
    await femoError("E_FILE", () => download(hub, cache, { env }));
    expect(hub.requests.find(({ path }) => path === "/more")).toMatchObject({ authorization: undefined });
  });

  test("follows a redirect on the Hub itself, as of a renamed model", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = ({ path }, response) => {
      if (!path.startsWith("/api/models/owner/tiny/revision/") || path.includes("renamed")) return false;
      response.writeHead(307, { location: `${path}?renamed` }).end();
      return true;
    };
    await download(hub, cache, { env });
    const renamed = hub.requests.find(({ path }) => path.endsWith("?renamed"));
    expect(renamed).toMatchObject({ authorization: `Bearer ${TOKEN}` });
  });

  test("comes from the file when the variable is not set; without both, none is sent", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache, { select: async () => ["model_index.json"] });
    expect(hub.requests.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
    hub.requests.length = 0;
    writeFileSync(join(cache, "token"), TOKEN);
    await download(hub, cache);
    expect(withToken(hub).length).toBeGreaterThan(0);
  });
});

describe("refusals say what to do, and never the token", () => {
  /** The message when every request, or those for files, are refused so. */
  async function refused(
    code: "E_ACCESS" | "E_FILE" | "E_NETWORK",
    status: number,
    errorCode: string | undefined,
    options: { path?: RegExp; env?: Record<string, string> } = {},
  ): Promise<string> {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = ({ path }, response) => {
      const matches = options.path?.test(path) ?? true;
      if (matches) refuse(response, status, errorCode);
      return matches;
    };
    const message = await femoError(code, () => download(hub, cache, options.env ? { env: options.env } : {}));
    expect(message).not.toContain(TOKEN);
    return message.replaceAll(hub.url, "HUB");
  }
  const files = /\/resolve\//;

  test.each([401, 403])("%i of a gated repository, without a token", async (status) => {
    expect(await refused("E_ACCESS", status, "GatedRepo", { path: files })).toBe(
      "owner/tiny/model_index.json: the repository is gated. Sign in and accept the licence at HUB/owner/tiny, " +
        "then set HF_TOKEN to a token of that account (HUB/settings/tokens).",
    );
  });

  test("403 of a gated repository, with a token", async () => {
    expect(await refused("E_ACCESS", 403, "GatedRepo", { path: files, env })).toMatch(
      /the token in HF_TOKEN was sent: accept the licence at HUB\/owner\/tiny with its account/i,
    );
  });

  test("401 without a token: the model may be private or not exist", async () => {
    expect(await refused("E_ACCESS", 401, undefined)).toMatch(
      /owner\/tiny: found no such model at HUB.*if it is private, set HF_TOKEN/,
    );
    expect(await refused("E_ACCESS", 401, "RepoNotFound")).toContain("found no such model");
  });

  test("401 with a token: it is not valid", async () => {
    expect(await refused("E_ACCESS", 401, undefined, { env })).toMatch(/the token in HF_TOKEN is not accepted/);
  });

  test("403 with a token: it lacks a right", async () => {
    expect(await refused("E_ACCESS", 403, undefined, { env })).toMatch(/forbidden.*what the token in HF_TOKEN may do/);
  });

  test("404 of the model, of the revision, of a file", async () => {
    expect(await refused("E_FILE", 404, "RepoNotFound")).toContain("owner/tiny: found no such model at HUB");
    expect(await refused("E_FILE", 404, undefined)).toContain("found no such model");
    expect(await refused("E_FILE", 404, "EntryNotFound", { path: files })).toContain(
      'owner/tiny/model_index.json: no such file at revision "main"',
    );
    const [hub, cache] = [await startHub(), temporaryFolder()];
    expect(await femoError("E_FILE", () => download(hub, cache, { revision: "v9" }))).toContain('no revision "v9"');
    expect(await femoError("E_FILE", () => download(hub, cache, { select: async () => ["no.txt"] }))).toContain(
      'has no file "no.txt"',
    );
  });

  test("anything else: the number", async () => {
    expect(await refused("E_NETWORK", 418, undefined)).toContain("HUB answered 418");
  });

  test("a store that refuses is tried again through the Hub; its signed address is not shown", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    let refusals = 0;
    hub.intercept = ({ server }, response) => {
      if (server === "cdn" && refusals++ < 1) refuse(response, 403);
      else return false;
      return true;
    };
    await download(hub, cache);
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
    hub.intercept = ({ server }, response) => {
      if (server === "cdn") refuse(response, 403);
      return server === "cdn";
    };
    const message = await femoError("E_NETWORK", () => download(hub, temporaryFolder()));
    expect(message).toContain("answered 403");
    expect(message).not.toContain("Signature");
  });
});

describe("a mirror that redirects everything to the Hub", () => {
  /** The two, and a download by way of the mirror; waits between attempts would be longer than the test. */
  async function mirrored(contents?: Record<string, unknown>) {
    const [hub, mirror, cache] = [await startHub(contents), await startHub({}), temporaryFolder()];
    mirror.intercept = ({ path }, response) => {
      response.writeHead(308, { location: hub.url + path }).end();
      return true;
    };
    const retry = { attempts: 5, firstDelayMs: 60_000 };
    return { hub, mirror, cache, get: (more = {}) => download(mirror, cache, { retry, ...more }) };
  }

  test("gives the files", async () => {
    const { cache, get } = await mirrored();
    await get();
    expect(filesBelow(snapshotFolder(cache)).size).toBe(NEEDED.length);
  });

  test.each<["E_ACCESS" | "E_FILE", number, string | undefined, RegExp, string]>([
    ["E_FILE", 404, "RepoNotFound", /api/, "found no such model at HUB"],
    ["E_FILE", 404, undefined, /api/, "found no such model at HUB"],
    ["E_ACCESS", 401, undefined, /api/, "found no such model at HUB"],
    ["E_FILE", 404, "RevisionNotFound", /revision/, 'has no revision "main"'],
    ["E_ACCESS", 401, "GatedRepo", /tree/, "the repository is gated. Sign in and accept the licence at HUB/owner/tiny"],
    ["E_ACCESS", 403, "GatedRepo", /resolve/, "owner/tiny/model_index.json: the repository is gated"],
    ["E_FILE", 404, "EntryNotFound", /resolve/, "no such file at revision"],
  ])("%s: what the Hub says by %i %s is explained at once", async (code, status, errorCode, path, words) => {
    const { hub, mirror, get } = await mirrored();
    hub.intercept = (request, response) => {
      if (!path.test(request.path)) return false;
      refuse(response, status, errorCode);
      return true;
    };
    const message = await femoError(code, () => get());
    expect(message.replaceAll(hub.url, "HUB")).toContain(words);
    expect(message).not.toContain(mirror.url);
  });

  test("the token is not sent to the Hub behind it, and the refusal says what to set", async () => {
    const { hub, get } = await mirrored();
    hub.intercept = (_, response) => {
      refuse(response, 401, "GatedRepo");
      return true;
    };
    const message = await femoError("E_ACCESS", () => get({ env }));
    expect(message).toContain(`set HF_ENDPOINT to ${hub.url}, for tokens go nowhere else`);
    expect(withToken(hub)).toEqual([]);
  });
});

test("a token that is kept back is named where it is missed", async () => {
  const [hub, cache] = [await startHub(), temporaryFolder()];
  hub.intercept = (_, response) => {
    refuse(response, 401, "GatedRepo");
    return true;
  };
  const withheld = { ...env, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" };
  const message = await femoError("E_ACCESS", () => download(hub, cache, { env: withheld }));
  expect(message).toContain("unset HF_HUB_DISABLE_IMPLICIT_TOKEN, which keeps back the token in HF_TOKEN");
  expect(withToken(hub)).toEqual([]);
});

describe("servers that mean harm, or are no Hub", () => {
  test.each(["../../outside", "/outside", "a/../../../outside", "a\\..\\outside", "a//b", "./a", "C:/a", "a\u0000b"])(
    "a file named %j is refused, and nothing is written",
    async (path) => {
      const [hub, cache] = [await startHub(), temporaryFolder()];
      hub.tamper = (entry) => (entry.path === "README.md" ? { ...entry, path } : entry);
      await femoError("E_FILE", () => download(hub, cache));
      expect(existsSync(repositoryFolder(cache))).toBe(false);
    },
  );

  test.each([
    ["a hash that is a path", { oid: "../../outside" }],
    ["a hash of another kind", { lfs: { oid: "md5", size: 1 } }],
    ["a size below zero", { size: -1 }],
    ["no size", { size: undefined }],
  ])("%s is refused", async (_, change) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.tamper = (entry) => ({ ...entry, ...change });
    expect(await femoError("E_NETWORK", () => download(hub, cache))).toContain("not the answer of a Hub");
    expect(existsSync(repositoryFolder(cache))).toBe(false);
  });

  test.each<[string, string]>([
    ["a page of HTML", "<!DOCTYPE html>"],
    ["other JSON", '{"hello": 1}'],
    ["a commit that is a path", '{"sha": "../../outside"}'],
  ])("%s instead of the revision", async (_, text) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = ({ path }, response) => {
      if (path.includes("/revision/")) response.end(text);
      return path.includes("/revision/");
    };
    expect(await femoError("E_NETWORK", () => download(hub, cache))).toContain("HF_ENDPOINT");
  });

  test.each(["http://", "file:///etc/passwd", "/loop"])("a redirect to %j ends", async (location) => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    hub.intercept = (_, response) => {
      response.writeHead(302, { location }).end();
      return true;
    };
    await femoError("E_NETWORK", () => download(hub, cache));
    expect(hub.requests.length).toBeLessThan(12);
  });

  test("a pipeline whose index names a part outside the folder", async () => {
    const index = { ...PIPELINE["model_index.json"], "../../x": ["diffusers", "X"] };
    const [hub, cache] = [await startHub({ ...PIPELINE, "model_index.json": index }), temporaryFolder()];
    await femoError("E_FILE", () => download(hub, cache));
    expect(hub.downloads()).toEqual(["model_index.json"]);
  });

  test("a ref in the cache that is no commit is not followed", async () => {
    const [hub, cache] = [await startHub(), temporaryFolder()];
    await download(hub, cache, { select: async () => [BIG] });
    writeFileSync(join(repositoryFolder(cache), "refs/main"), "../../../outside");
    const message = await femoError("E_FILE", () => download(hub, cache, { env: { HF_HUB_OFFLINE: "1" } }));
    expect(message).toContain(`${REPO}: not whole in the cache`);
  });
});
