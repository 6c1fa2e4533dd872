import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { "#platform": fileURLToPath(new URL("src/platform/node/index.ts", import.meta.url)) } },
  test: {
    include: ["tests/**/*.test.ts"],
    globalSetup: "tests/build.ts",
    // For a slow machine that is busy besides: they end what hangs, and say nothing of speed.
    hookTimeout: 120_000,
    testTimeout: 180_000,
    pool: "forks",
    isolate: false, // modules are loaded once a worker: a third of the suite's work
    maxWorkers: 2,
  },
});
