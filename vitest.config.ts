import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    globalSetup: "tests/build.ts",
    // For a slow machine that is busy besides: they end what hangs, and say nothing of speed.
    hookTimeout: 120_000,
    testTimeout: 180_000,
    pool: "forks",
    maxWorkers: 2,
  },
});
