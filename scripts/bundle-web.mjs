/**
 * Bundles dist for pages without a bundler, and for bundlers that do not find workers, into dist/web: femo.js, and beside
 * it the three workers and what femo.js loads when a model needs it. The runtime's WebAssembly goes into the same folder of the site, from node_modules/onnxruntime-web/dist.
 */
import { build } from "esbuild";

const common = {
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  outdir: "dist/web",
  logLevel: "warning",
  tsconfigRaw: {}, // that of the sources has #platform in Node
};
await build({ ...common, splitting: true, entryPoints: { femo: "dist/index.js" } });
await build({
  ...common,
  entryPoints: ["wasm", "jspi", "webgpu"].map((name) => ({
    in: `dist/platform/web/engine-${name}.js`,
    out: `engine-${name}`,
  })),
});
