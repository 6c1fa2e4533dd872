import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { serve } from "./site.js";

/** Debian's Chromium, or another. */
const PATH = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why tests of pages cannot run here; undefined if they can. */
export const noBrowser: string | undefined = existsSync(PATH)
  ? undefined
  : `no Chromium at ${PATH}: apt-get install chromium, or set CHROMIUM to its path`;

/** Headless, with WebGPU computed by the processor, as there is no GPU. */
export const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: PATH,
    args: ["--no-sandbox", "--enable-unsafe-webgpu", "--enable-features=Vulkan"].slice(0, 2),
  });

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
