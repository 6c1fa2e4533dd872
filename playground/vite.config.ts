import { createHash } from "node:crypto";
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const MODEL = "avatars-flux";
/** What a page needs of the model's folder. */
const NEEDED = /\.(json|txt|safetensors)$/;

/** The model's files under models/, with the list by which femo checks them. */
function model(): Plugin {
  const folder = at(`../models/${MODEL}`);
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => NEEDED.test(path) && path !== "prompts.txt" && path !== "evaluation.json")
    .filter((path) => statSync(join(folder, path)).isFile());
  const list = (): string => {
    const entries = files.map((path) => {
      const bytes = readFileSync(join(folder, path));
      return [path, { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }];
    });
    return JSON.stringify({ files: Object.fromEntries(entries) });
  };
  return {
    name: "femo-model",
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const path = /\/models\/avatars-flux\/(.*?)(?:\?|$)/.exec(request.url ?? "")?.[1];
        const file = path === undefined ? undefined : join(folder, path);
        if (path === "femo-files.json") response.end(list());
        else if (file && files.includes(path ?? "") && existsSync(file)) createReadStream(file).pipe(response);
        else next();
      });
    },
    generateBundle() {
      for (const path of files) {
        this.emitFile({ type: "asset", fileName: `models/${MODEL}/${path}`, source: readFileSync(join(folder, path)) });
      }
      this.emitFile({ type: "asset", fileName: `models/${MODEL}/femo-files.json`, source: list() });
    },
  };
}

/** With these a page is isolated from other origins, and WebAssembly has threads. Without them all works, with one. */
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({
  root: at("."),
  base: "./", // for any folder of a site
  resolve: { alias: { femo: at("../dist/index.js") } },
  plugins: [model()],
  build: { outDir: at("dist"), emptyOutDir: true, target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  worker: { format: "es" },
  server: { headers },
  preview: { headers },
});
