import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { outputTarget, writeFiles } from "../../src/cli/files.js";
import { femoError } from "../weights/helpers.js";
import { femo, folder, main, tinyModel } from "./run.js";

const tiny = await tinyModel();

/** A folder with a file "plain", a folder "d.png" and a folder "face.jpg". */
function place(): string {
  const cwd = folder();
  writeFileSync(join(cwd, "plain"), "kept");
  for (const name of ["d.png", "face.jpg", "r.html"]) mkdirSync(join(cwd, name));
  return cwd;
}

describe("outputs are checked before the model is opened", () => {
  // There is no such model: opening it would fail with 1, and say so.
  const model = ["--model", "nowhere"];
  test.each<[args: string[], words: string]>([
    [["generate", "micah", "--out", "plain"], "expected a .png file or a folder, found the file plain"],
    [["generate", "micah", "--out", "plain/a.png"], "plain, which is a file"],
    [["generate", "micah", "--out", "plain/deep/er"], "plain, which is a file"],
    [["generate", "micah", "--out", "d.png", "--force"], "found the folder d.png"],
    [["generate", "micah", "--out", "new.jpg"], "expected a .png file or a folder, found new.jpg"],
    [["generate", "micah", "--out", "new.PDF"], "expected a .png file or a folder, found new.PDF"],
    [["generate", "micah", "--out", "/proc/images"], "nothing can be written in /proc"],
    [["generate", "micah", "adventurer", "--out", "a.png"], "expected a folder for 2 images"],
    [["generate", "micah", "--num-images-per-prompt", "2", "--out", "a.png"], "expected a folder for 2 images"],
    [["compare", "--out", "plain"], "expected a .html file or a folder, found the file plain"],
    [["compare", "--out", "plain/r"], "plain, which is a file"],
    [["compare", "--out", "r.html", "--force"], "found the folder r.html"],
    [["compare", "--out", "report.png"], "expected a .html file or a folder, found report.png"],
    [["compare", "--out", "/proc/report.html"], "nothing can be written in /proc"],
  ])("%j", async (args, words) => {
    const cwd = place();
    const before = readdirSync(cwd);
    const { code, stdout, stderr } = await femo([...args, ...model], { cwd });
    expect([code, stdout, readdirSync(cwd)]).toEqual([2, "", before]);
    expect(stderr).toContain(words);
    expect(readFileSync(join(cwd, "plain"), "utf8")).toBe("kept");
  });

  test("a folder is one whatever it is called, and need not be there", () => {
    const cwd = place();
    for (const name of [".", "face.jpg", "v1.2", "new/er"]) {
      expect(outputTarget(join(cwd, name), ".png")).toEqual({ folder: join(cwd, name) });
    }
    for (const name of ["a.png", "A.PNG", "new/a.png"]) {
      expect(outputTarget(join(cwd, name), ".png")).toEqual({ file: join(cwd, name) });
    }
    expect(readdirSync(cwd).sort()).toEqual(["d.png", "face.jpg", "plain", "r.html"]); // the trial leaves nothing
  });
});

test("a folder where an image is to go is found before it is drawn", async () => {
  const cwd = folder();
  mkdirSync(join(cwd, "femo-micah-0.png"));
  const { code, stderr } = await femo(["generate", "micah", ...tiny, "--force", "--steps", "100"], { cwd });
  expect(code).toBe(2);
  expect(stderr).toContain("femo-micah-0.png is a folder");
});

test("all files are written or none", async () => {
  const cwd = folder();
  mkdirSync(join(cwd, "b.png"));
  writeFileSync(join(cwd, "b.png", "inside"), "");
  const files = ["new/a.png", "plain/c.png"].map((name) => ({ path: join(cwd, name), content: name }));
  writeFileSync(join(cwd, "plain"), "kept");
  const message = await femoError("E_FILE", () => writeFiles(files, new AbortController().signal));
  expect(message).toMatch(/plain\/c\.png cannot be written: .*plain/);
  expect(readdirSync(join(cwd, "new"))).toEqual([]);
  const reason = new Error("stop");
  await expect(writeFiles(files.slice(0, 1), AbortSignal.abort(reason))).rejects.toBe(reason);
  expect(readdirSync(join(cwd, "new"))).toEqual([]);
});

describe("standard output", () => {
  test.skipIf(!existsSync("/dev/full"))("that is full ends with a message and 1", () => {
    const { status, stderr } = spawnSync("sh", ["-c", `exec "$0" "$1" classes > /dev/full`, process.execPath, main], {
      encoding: "utf8",
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^femo: standard output: not all was written, .*ENOSPC.*\n$/);
  });

  test("that nobody reads ends quietly, as a signal would end it", async () => {
    const { code, stderr } = await femo(["study", "costs"], { begun: ({ stdout }) => stdout?.destroy() });
    expect([code, stderr]).toEqual([141, ""]);
  });
});

test("femo compare says the settings that were given with the reference's sampler", async () => {
  const cwd = folder();
  const sampler = JSON.stringify({ sampler: "dpm-solver++", solverOrder: 3 });
  const args = ["compare", ...tiny, "--classes", "0", "--steps", "3", "--interval", "2", "--cache", "fora"];
  const { code, stdout } = await femo([...args, "--sampler", sampler, "--json"], { cwd });
  expect(code).toBe(0);
  const { samplerSettings, rows } = JSON.parse(stdout);
  expect([samplerSettings, rows[1].samplerSettings]).toEqual([{ solverOrder: 3 }, { solverOrder: 3 }]);
  const page = readFileSync(join(cwd, "femo-report", "index.html"), "utf8");
  expect(page).toContain("DPM-Solver++, linspace spacing, solverOrder: 3");
});

test("standard error that nobody reads does not matter", async () => {
  const cwd = folder();
  const args = ["compare", ...tiny, "--classes", "0", "--steps", "3", "--interval", "2", "--cache", "fora"];
  const { code } = await femo(args, { cwd, begun: ({ stderr }) => stderr?.destroy() });
  expect(code).toBe(0);
  expect(readdirSync(cwd)).toEqual(["femo-report"]);
});
