import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeWhole } from "../../src/platform/node/whole-files.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "femo-whole-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const file = (path: string, text: string) => ({
  path: join(folder, path),
  write: (temporary: string) => writeFile(temporary, text),
});
const textOf = (path: string): string => readFileSync(join(folder, path), "utf8");

test("files get their names, in folders that are made, and nothing else is left", async () => {
  writeFileSync(join(folder, "a"), "old");
  await writeWhole(file("a", "1"), file("x/y/b", "2"));
  expect([textOf("a"), textOf("x/y/b")]).toEqual(["1", "2"]);
  expect(readdirSync(folder, { recursive: true }).sort()).toEqual(["a", "x", "x/y", "x/y/b"]);
});

test("if one fails, no file has changed and nothing is left", async () => {
  writeFileSync(join(folder, "a"), "old");
  const reason = new Error("enough");
  const failing = {
    path: join(folder, "b"),
    write: async (temporary: string) => {
      await writeFile(temporary, "half");
      expect(textOf("a")).toBe("old");
      throw reason;
    },
  };
  await expect(writeWhole(file("a", "new"), failing)).rejects.toBe(reason);
  expect(readdirSync(folder)).toEqual(["a"]);
  expect(textOf("a")).toBe("old");
});

test("two who write the same file at once do not meet: one of them is there, whole", async () => {
  const texts = ["1".repeat(100_000), "2".repeat(100_000)];
  await Promise.all(texts.map((text) => writeWhole(file("a", text))));
  expect(texts).toContain(textOf("a"));
  expect(readdirSync(folder)).toEqual(["a"]);
});
