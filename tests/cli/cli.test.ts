import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { decodePng } from "../../src/images/index.js";

const main = resolve("dist/cli/main.js");
const folder = () => mkdtempSync(join(tmpdir(), "femo-cli-"));

/** Shows its progress, as on a terminal. */
const onTerminal = ["--import", "data:text/javascript,process.stderr.isTTY = true"];

function femo(args: string[], options: { cwd?: string; interruptAt?: string } = {}) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((done) => {
    const flags = options.interruptAt === undefined ? [] : onTerminal;
    const child = spawn(process.execPath, [...flags, main, ...args], { cwd: options.cwd ?? folder() });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data) => {
      stdout += data;
    });
    let interrupted = false;
    child.stderr.on("data", (data) => {
      stderr += data;
      if (interrupted || !options.interruptAt || !stderr.includes(options.interruptAt)) return;
      interrupted = child.kill("SIGINT");
    });
    child.on("close", (code) => done({ code, stdout, stderr }));
  });
}

describe("femo generate", () => {
  test("writes a PNG that says how it was made; stdout is JSON alone", async () => {
    const cwd = folder();
    const args = ["generate", "micah", "--steps", "4", "--seed", "7", "--cache", "femo", "--interval", "2"];
    const { code, stdout, stderr } = await femo([...args, "--json"], { cwd });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout).images[0].file).toBe("femo-micah-7.png");
    const { text } = decodePng(readFileSync(join(cwd, "femo-micah-7.png")));
    expect(text.parameters).toContain("Steps: 4, Sampler: DDIM");
    expect(JSON.parse(text.femo as string)).toMatchObject({ className: "micah", seed: 7, cache: { interval: 2 } });
  });

  test("a file that exists is kept unless --force is given", async () => {
    const cwd = folder();
    writeFileSync(join(cwd, "a.png"), "kept");
    const args = ["generate", "micah", "--steps", "2", "--out", "a.png"];
    const refused = await femo(args, { cwd });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("--force");
    expect(readFileSync(join(cwd, "a.png"), "utf8")).toBe("kept");
    expect((await femo([...args, "--force"], { cwd })).code).toBe(0);
    expect(decodePng(readFileSync(join(cwd, "a.png"))).image.width).toBe(64);
  });

  test("Ctrl-C leaves no file", async () => {
    const cwd = folder();
    const { code } = await femo(["generate", "micah", "--steps", "500", "--num-images", "2"], {
      cwd,
      interruptAt: "step 2 of 500",
    });
    expect(code).toBe(130);
    expect(readdirSync(cwd)).toEqual([]);
  });

  test.each([
    [["generate", "micha"], 2, '"micah"'],
    [["generate", "micah", "--sampler", "euler"], 2, "ddim, dpm-solver++"],
    [["generate", "micah", "--stepz", "4"], 2, "--steps"],
    [["generate", "micah", "--interval", "4"], 2, "--cache"],
    [["generate", "micah", "--cache", "fora", "--order", "2"], 2, "order"],
    [["generate", "micah", "--steps", "four"], 2, "Expected a number"],
    [["generate", "micah", "--model", "nowhere"], 1, "avatars-dit"],
    [["generat"], 2, "generate"],
  ])("%j fails with %i and says %s", async (args, expected, words) => {
    const { code, stdout, stderr } = await femo(args);
    expect(code).toBe(expected);
    expect(stdout).toBe("");
    expect(stderr).toContain(words);
    expect(stderr).not.toContain("    at ");
  });
});

test("femo classes and femo --version", async () => {
  expect((await femo(["classes"])).stdout).toContain("8\tmicah");
  expect(await femo(["--version"])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
});
