import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";

const femo = (...args: string[]) =>
  new Promise<{ code: number; stdout: string; stderr: string }>((done) => {
    execFile(process.execPath, [resolve("dist/cli/main.js"), ...args], (error, stdout, stderr) => {
      done({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });

test("femo study costs prints one table or all, as text, JSON or CSV", async () => {
  const { code, stdout, stderr } = await femo("study", "costs", "--table", "a2");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/^Appendix, Table 2/);
  expect(stdout).toContain("7 of 7 rows to the printed digit");
  const { tables } = JSON.parse((await femo("study", "costs", "--table", "4,a2", "--json")).stdout);
  expect(tables.map((table: { name: string }) => table.name)).toEqual(["4", "A2"]);
  expect((await femo("study", "costs", "--table", "4", "--csv")).stdout).toMatch(/^table,method,interval,/);
});

test.each([
  [["study", "costs", "--table", "7"], '"7"'],
  [["study", "costs", "--json", "--csv"], "--csv"],
  [["study", "cost"], "cost"],
])("femo %j fails with 2 and says %s", async (args, words) => {
  const { code, stdout, stderr } = await femo(...args);
  expect(code).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toContain(words);
  expect(stderr).not.toContain("    at ");
});
