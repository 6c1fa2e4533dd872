import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { build as esbuild } from "esbuild";
import type { Browser } from "playwright-core";
import { build as vite } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Stats, webpack } from "webpack";
import { inChromium, launch, noBrowser } from "./browser.js";
import { serve } from "./site.js";

describe.skipIf(noBrowser)(inChromium("the example draws in a page"), () => {
  let browser: Browser;
  let project: string;
  beforeAll(async () => {
    browser = await launch();
    project = mkdtempSync(join(tmpdir(), "femo-bundlers-"));
    cpSync("examples/vite", project, { recursive: true });
    // As an install leaves it: what is published, and what it needs.
    const installed = join(project, "node_modules");
    for (const part of ["package.json", "dist"]) cpSync(part, join(installed, "femo", part), { recursive: true });
    for (const name of Object.keys(JSON.parse(readFileSync("package.json", "utf8")).dependencies)) {
      mkdirSync(dirname(join(installed, name)), { recursive: true });
      symlinkSync(resolve("node_modules", name), join(installed, name));
    }
  });
  afterAll(async () => {
    await browser?.close();
    if (project) rmSync(project, { recursive: true });
  });

  /** The page's last words. @param folders by their paths, besides the model's */
  async function drawn(...folders: (readonly [string, string])[]): Promise<string | null> {
    const site = await serve([["models/avatars-flux/", "models/avatars-flux"], ...folders]);
    const page = await browser.newPage();
    const failed = new Promise<string>((tell) => page.once("pageerror", ({ message }) => tell(message)));
    try {
      await page.goto(`${site.url}index.html`);
      const done = page.waitForFunction(() => document.querySelector("#state")?.textContent?.startsWith("drawn"));
      return await Promise.race([failed, done.then(() => page.textContent("#state"))]);
    } finally {
      await page.close();
      await site.close();
    }
  }

  const words = /^drawn on WebAssembly, 1 thread, \d\.\d times fewer operations$/;

  test("built by Vite, without configuration", async () => {
    const out = join(project, "built");
    await vite({ root: project, configFile: false, logLevel: "error", build: { outDir: out, target: "es2022" } });
    expect(await drawn(["", out])).toMatch(words);
  });

  test("built by webpack, without configuration", async () => {
    const out = join(project, "packed");
    // Making scripts short takes most of the time and changes nothing that is looked at here.
    const optimization = { minimize: false };
    const compiler = webpack({
      context: project,
      entry: "./main.js",
      mode: "production",
      output: { path: out },
      optimization,
    });
    const stats = await new Promise<Stats | undefined>((resolve, reject) => {
      compiler.run((error, done) => (error ? reject(error) : resolve(done)));
    });
    expect(stats?.toJson({ all: false, errors: true }).errors).toEqual([]);
    expect(await drawn(["", out], ["", project])).toMatch(words);
  });

  test("built by esbuild, with the workers and the runtime copied beside it", async () => {
    const out = join(project, "bundled");
    const entryPoints = [join(project, "main.js")];
    await esbuild({ entryPoints, bundle: true, format: "esm", target: "es2022", outdir: out, logLevel: "error" });
    const folders = [out, "dist/web", "node_modules/onnxruntime-web/dist", project].map((from) => ["", from] as const);
    expect(await drawn(...folders)).toMatch(words);
  });

  test("without a bundler", async () => {
    expect(
      await drawn(
        ["", "examples/plain"],
        ["", "examples/vite"], // the same script
        ["femo/", "dist/web"],
        ["femo/", "node_modules/onnxruntime-web/dist"],
      ),
    ).toMatch(words);
  });
});
