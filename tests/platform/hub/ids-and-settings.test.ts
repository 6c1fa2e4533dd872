import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { formatModelId, parseModelId } from "../../../src/platform/node/hub/index.js";
import { hubSettings } from "../../../src/platform/node/hub/settings.js";
import { femoError } from "../../weights/helpers.js";
import { temporaryFolder } from "./setup.js";

describe("names of models", () => {
  test.each([
    ["facebook/DiT-XL-2-256", "facebook/DiT-XL-2-256", "main"],
    ["black-forest-labs/FLUX.1-dev@v1.0", "black-forest-labs/FLUX.1-dev", "v1.0"],
    ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
    ["a/b@main", "a/b", "main"],
  ])("%s", (text, repo, revision) => {
    const id = parseModelId(text);
    expect(id).toEqual({ repo, revision });
    expect(id && parseModelId(formatModelId(id))).toEqual(id);
  });

  test.each([
    "avatars-dit",
    "./a/b",
    "../a",
    "a/..",
    "/a/b",
    "a/b/c",
    "a/b/",
    "a\\b",
    "C:/b",
    "a/b@",
    "a/b@/x",
    "a/b@../x",
    "a/b@x/../y",
    "a/b@x/.y",
    "a/b@x@y",
    "a/b c",
    "a--b/c",
    "a/b.git",
    "a/-b",
    "~/b",
    "",
  ])("not %j", (text) => expect(parseModelId(text)).toBeUndefined());
});

describe("settings", () => {
  const home = join(homedir(), ".cache", "huggingface");
  test.each<[string, Record<string, string>, string]>([
    ["the home folder unless told", {}, join(home, "hub")],
    ["empty variables count as absent", { HF_HOME: "", HF_HUB_CACHE: "" }, join(home, "hub")],
    ["XDG_CACHE_HOME", { XDG_CACHE_HOME: "/xdg" }, "/xdg/huggingface/hub"],
    ["HF_HOME before it", { XDG_CACHE_HOME: "/xdg", HF_HOME: "/home" }, "/home/hub"],
    ["HUGGINGFACE_HUB_CACHE before it", { HF_HOME: "/home", HUGGINGFACE_HUB_CACHE: "/old" }, "/old"],
    ["HF_HUB_CACHE before all", { HF_HUB_CACHE: "/new", HUGGINGFACE_HUB_CACHE: "/old", HF_HOME: "/home" }, "/new"],
    ["~ and variables are expanded", { HF_HUB_CACHE: `~/$A/$\{B}`, HOME: "/me", A: "x", B: "y" }, "/me/x/y"],
  ])("cache: %s", async (_, env, cache) => expect((await hubSettings(env)).cache).toBe(cache));

  test.each(["1", "TRUE", "yes", "on"])("HF_HUB_OFFLINE=%s forbids the network", async (HF_HUB_OFFLINE) => {
    expect((await hubSettings({ HF_HUB_OFFLINE })).offline).toBe("HF_HUB_OFFLINE");
  });

  test.each(["0", "", "no"])("HF_HUB_OFFLINE=%s does not", async (HF_HUB_OFFLINE) => {
    expect((await hubSettings({ HF_HUB_OFFLINE })).offline).toBeUndefined();
  });

  test("TRANSFORMERS_OFFLINE counts where HF_HUB_OFFLINE is not set", async () => {
    const offline = async (HF_HUB_OFFLINE: string | undefined) =>
      (await hubSettings({ HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE: "1" })).offline;
    expect(await offline(undefined)).toBe("TRANSFORMERS_OFFLINE");
    expect(await offline("")).toBe("TRANSFORMERS_OFFLINE");
    expect(await offline("0")).toBeUndefined();
    expect(await offline("1")).toBe("HF_HUB_OFFLINE");
  });

  test("the endpoint has no slash at its end and may have a path", async () => {
    expect((await hubSettings({})).endpoint).toBe("https://huggingface.co");
    expect((await hubSettings({ HF_ENDPOINT: "http://mirror:8080/hf/" })).endpoint).toBe("http://mirror:8080/hf");
  });

  test.each(["huggingface.co", "file:///etc", "http://user:secret@host"])(
    "the endpoint cannot be %s",
    async (HF_ENDPOINT) => {
      const message = await femoError("E_OPTION", () => hubSettings({ HF_ENDPOINT }));
      expect(message).toMatch(/HF_ENDPOINT: expected an address/);
      expect(message).not.toContain("secret");
    },
  );

  test("the token: HF_TOKEN, then the file", async () => {
    const folder = temporaryFolder();
    const env = { HF_HOME: folder };
    expect((await hubSettings(env)).token).toBeUndefined();
    writeFileSync(join(folder, "token"), "hf_file\n");
    expect(await hubSettings(env)).toMatchObject({ token: "hf_file", tokenSource: join(folder, "token") });
    expect(await hubSettings({ ...env, HF_TOKEN: " hf_env " })).toMatchObject({
      token: "hf_env",
      tokenSource: "HF_TOKEN",
    });
  });

  test("the token: HUGGING_FACE_HUB_TOKEN between HF_TOKEN and the file", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "token"), "hf_file\n");
    const env = { HF_HOME: folder, HUGGING_FACE_HUB_TOKEN: "hf_old" };
    expect(await hubSettings(env)).toMatchObject({ token: "hf_old", tokenSource: "HUGGING_FACE_HUB_TOKEN" });
    expect(await hubSettings({ ...env, HF_TOKEN: "hf_new" })).toMatchObject({
      token: "hf_new",
      tokenSource: "HF_TOKEN",
    });
  });

  test("the token: HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it back, wherever it is from", async () => {
    const folder = temporaryFolder();
    const env = { HF_HOME: folder, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" };
    expect(await hubSettings(env)).toMatchObject({ token: undefined, tokenWithheld: false });
    expect(await hubSettings({ ...env, HF_TOKEN: "hf_x" })).toMatchObject({ token: undefined, tokenWithheld: true });
    writeFileSync(join(folder, "token"), "hf_file\n");
    expect(await hubSettings(env)).toMatchObject({ token: undefined, tokenWithheld: true });
    expect((await hubSettings({ ...env, HF_HUB_DISABLE_IMPLICIT_TOKEN: "0" })).token).toBe("hf_file");
  });

  test.each<[Record<string, string>, string | undefined, string | undefined, string]>([
    [{}, undefined, undefined, ""],
    [{ HTTP_PROXY: "", HTTPS_PROXY: " " }, undefined, undefined, ""],
    [{ HTTPS_PROXY: "http://p:1", NO_PROXY: "a,b" }, undefined, "http://p:1", "a,b"],
    [{ https_proxy: "http://p:1", HTTPS_PROXY: "http://q:1" }, undefined, "http://p:1", ""],
    [{ http_proxy: "p:1", no_proxy: "a", NO_PROXY: "b" }, "http://p:1", undefined, "a"],
    [{ HTTP_PROXY: "https://p", HTTPS_PROXY: "socks5://p:1" }, "https://p", "socks5://p:1", ""],
  ])("proxies of %j", async (env, http, https, none) => {
    expect((await hubSettings(env)).proxies).toEqual({ "http:": http, "https:": https, none });
  });

  test("a proxy that cannot be one is not repeated", async () => {
    const message = await femoError("E_OPTION", () => hubSettings({ HTTPS_PROXY: "ftp://me:secret@host" }));
    expect(message).toContain("HTTPS_PROXY: expected an address");
    expect(message).not.toContain("secret");
  });

  test("a token that cannot be one is not repeated", async () => {
    const message = await femoError("E_OPTION", () => hubSettings({ HF_TOKEN: "hf_secret\nhf_other" }));
    expect(message).toContain("HF_TOKEN: expected one token");
    expect(message).not.toContain("secret");
  });

  test("a token file that is a folder is named", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "token"));
    expect(await femoError("E_FILE", () => hubSettings({ HF_HOME: folder }))).toContain(join(folder, "token"));
  });
});
