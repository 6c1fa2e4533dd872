import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { type Site, serve } from "./site.js";

/** Debian's Chromium, or another. */
const PATH = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why tests of pages cannot run here; undefined if they can. */
export const noBrowser: string | undefined = existsSync(PATH)
  ? undefined
  : `no Chromium at ${PATH}: apt-get install chromium, or set CHROMIUM to its path`;

/** The name of a group of tests, which says why it is skipped if it is. */
export const inChromium = (name: string): string => (noBrowser ? `${name} (skipped: ${noBrowser})` : name);

/** Headless, with WebGPU computed by the processor where there is no GPU. */
export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: PATH, args: ["--no-sandbox", "--enable-unsafe-webgpu"] });

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** A site with the bundle for plain pages, the runtime's WebAssembly beside it, and folders of models. */
export const serveFemo = (models: Readonly<Record<string, string>>, options: { isolated?: boolean } = {}) =>
  serve(
    [
      ["femo/", at("dist/web")],
      ["femo/", at("node_modules/onnxruntime-web/dist")],
      ...Object.entries(models).map(([name, folder]) => [`models/${name}/`, folder] as const),
    ],
    options,
  );

/** A page of the site, in a profile of its own, with femo as a global. */
export async function openPage(browser: Browser, site: Site): Promise<Page> {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(site.url);
  await page.waitForFunction(() => "femo" in globalThis);
  return page;
}
