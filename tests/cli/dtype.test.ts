import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { decodePng } from "../../src/images/index.js";
import { tinyPipeline } from "../tiny-pipeline.js";

const cwd = mkdtempSync(join(tmpdir(), "femo-cli-dtype-"));
let model: Awaited<ReturnType<typeof tinyPipeline>>;
beforeAll(async () => {
  model = await tinyPipeline();
});
afterAll(() => {
  model.remove();
  rmSync(cwd, { recursive: true });
});
const femo = (...args: string[]) =>
  spawnSync(process.execPath, [resolve("dist/cli/main.js"), ...args, "--model", model.folder], {
    cwd,
    env: { ...process.env, FEMO_CACHE: join(cwd, "cache") },
    encoding: "utf8",
  });

test.each([
  ["float32", []],
  ["int8", ["--dtype", "int8"]],
  ["int4", ["--dtype", "int4"]],
])("an image says that it was drawn in %s", (dtype, flags) => {
  const file = `${dtype}.png`;
  const { status, stdout } = femo("generate", "micah", "--steps", "2", "--out", file, "--json", ...flags);
  expect(status).toBe(0);
  expect(JSON.parse(stdout).report.dtype).toBe(dtype);
  const { text } = decodePng(readFileSync(join(cwd, file)));
  expect(text.parameters).toContain(`Precision: ${dtype}`);
  expect(JSON.parse(text.femo as string)).toMatchObject({ dtype });
});

test("a comparison in 8 bits says so", () => {
  const sizes = ["--classes", "0", "--steps", "4", "--interval", "2", "--cache", "femo"];
  const { status, stdout } = femo("compare", ...sizes, "--dtype", "int8", "--json");
  expect(status).toBe(0);
  expect(JSON.parse(stdout).dtype).toBe("int8");
  expect(readFileSync(join(cwd, "femo-report/index.html"), "utf8")).toMatch(/<dt>Precision<\/dt><dd>int8/);
});

test("another type is refused with those there are", () => {
  const { status, stderr } = femo("generate", "micah", "--dtype", "int2");
  expect(status).toBe(2);
  expect(stderr).toContain("float32, float16, int8, int4");
});
