import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { decodePng } from "../src/images/index.js";

/** Runs an example as it stands, in a folder of its own. */
async function run(name: string) {
  const cwd = mkdtempSync(join(tmpdir(), "femo-example-"));
  const { stdout } = await promisify(execFile)(process.execPath, [resolve("examples", name)], { cwd });
  return { stdout, files: readdirSync(cwd).sort(), read: (file: string) => readFileSync(join(cwd, file)) };
}

test("01-generate draws four images with 12 of 50 steps in full", async () => {
  const { stdout, files, read } = await run("01-generate.mjs");
  expect(files).toEqual([0, 1, 2, 3].map((i) => `avatar-${i}.png`));
  for (const file of files) expect(decodePng(read(file)).image.width).toBe(128);
  expect(stdout.match(/^\d+ full /gm)).toHaveLength(12);
  expect(stdout.match(/^\d+ forecast /gm)).toHaveLength(38);
}, 120_000);

test("02-compare prints a table and writes a report", async () => {
  const { stdout, files, read } = await run("02-compare.mjs");
  expect(stdout).toMatch(/^FEMO +6 of 20 /m);
  expect(stdout).toMatch(/^6 steps +6 of 6 /m);
  expect(files).toEqual(["report.html"]);
  expect(read("report.html").toString()).toContain("<title>avatars-dit: 1 image, drawn 3 ways</title>");
}, 120_000);

test("every example is run here, and README shows the first", () => {
  // Those of pages run in tests/web/bundlers.test.ts.
  expect(readdirSync("examples").sort()).toEqual(["01-generate.mjs", "02-compare.mjs", "plain", "vite"]);
  expect(readFileSync("README.md", "utf8")).toContain(
    `\`\`\`js\n${readFileSync("examples/01-generate.mjs", "utf8")}\`\`\``,
  );
});
