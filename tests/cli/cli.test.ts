import { execFile } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { decodePng } from "../../src/images/index.js";
import { cacheMethods } from "../../src/methods/index.js";
import { tiny } from "../tiny-pipeline.js";
import { femo, folder, tinyModel } from "./run.js";

const model = await tinyModel();

describe("femo generate", () => {
  test("writes a PNG that says how it was made; stdout is JSON alone", async () => {
    const cwd = folder();
    const args = ["generate", "micah", ...model, "--steps", "4", "--seed", "7", "--cache", "femo", "--interval", "2"];
    const { code, stdout } = await femo([...args, "--json"], { cwd });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).images[0].file).toBe("femo-micah-7.png");
    const { text } = decodePng(readFileSync(join(cwd, "femo-micah-7.png")));
    expect(text.parameters).toContain("Steps: 4, Sampler: DDIM");
    expect(JSON.parse(text.femo as string)).toMatchObject({ className: "micah", seed: 7, cache: { interval: 2 } });
  });

  test("seeds are 64 bits and written in decimal: name of the file, JSON, and text of the image", async () => {
    const cwd = folder();
    const args = ["generate", "micah", "ibis", ...model, "--steps", "1", "--seed", "-1", "--json"];
    const { code, stdout } = await femo(args, { cwd });
    expect(code).toBe(0);
    const files = ["femo-micah-18446744073709551615.png", "femo-ibis-0.png"];
    const { images } = JSON.parse(stdout);
    expect(images.map(({ file, seed }: { file: string; seed: unknown }) => [file, seed])).toEqual([
      [files[0], "18446744073709551615"],
      [files[1], 0],
    ]);
    const { text } = decodePng(readFileSync(join(cwd, files[0] as string)));
    expect(text.parameters).toContain("Seed: 18446744073709551615,");
    expect(JSON.parse(text.femo as string).seed).toBe("18446744073709551615");
  });

  test("what settings cost is said on standard error, unless quiet", async () => {
    const args = ["generate", "micah", ...model, "--steps", "2", "--timestep-spacing", "linspace", "--force"];
    expect((await femo(args)).stderr).toContain(
      'femo: DDIM with "linspace" spacing of 2 steps lands beside its own list',
    );
    expect(await femo([...args, "--quiet"])).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  test("a solver in a file says how many steps there are", async () => {
    const cwd = folder();
    const solver = { sampler: "multistep", timesteps: [90, 50, 10], table: [[1], [0, 1], [-0.5, 0, 1.5]] };
    writeFileSync(join(cwd, "solver.json"), JSON.stringify(solver));
    const args = ["generate", "micah", ...model, "--sampler", "solver.json", "--json"];
    const { code, stdout } = await femo(args, { cwd });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).report).toMatchObject({ sampler: "multistep", numInferenceSteps: 3 });
    const { text } = decodePng(readFileSync(join(cwd, "femo-micah-0.png")));
    expect(text.parameters).toContain("Steps: 3, Sampler: Multistep");

    const refused = await femo([...args, "--steps", "4", "--force"], { cwd });
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("numInferenceSteps: expected 3")]);
    writeFileSync(join(cwd, "solver.json"), JSON.stringify({ ...solver, table: [[1]] }));
    const short = await femo(args, { cwd });
    expect([short.code, short.stderr]).toEqual([1, expect.stringContaining("solver.json: table: expected 3 rows")]);
    writeFileSync(join(cwd, "solver.json"), "{");
    const broken = await femo(args, { cwd });
    expect([broken.code, broken.stderr]).toEqual([1, expect.stringContaining("solver.json: not valid JSON at line 1")]);
  });

  test("settings of a sampler come as JSON or in a file, and the picture says them", async () => {
    const cwd = folder();
    const settings = { solverOrder: 3, finalSigmasType: "zero" };
    const text = JSON.stringify({ sampler: "deis", ...settings });
    writeFileSync(join(cwd, "deis.json"), text);
    const draw = (sampler: string) =>
      femo(["generate", "micah", ...model, "--steps", "3", "--sampler", sampler, "--json", "--force"], { cwd });
    const pictures = [];
    for (const sampler of [text, "deis.json"]) {
      const { code, stdout, stderr } = await draw(sampler);
      expect([code, stderr]).toEqual([0, ""]);
      expect(JSON.parse(stdout).report).toMatchObject({ sampler: "deis", samplerSettings: settings });
      pictures.push(decodePng(readFileSync(join(cwd, "femo-micah-0.png"))));
    }
    expect(pictures[0]).toEqual(pictures[1]);
    expect(JSON.parse(pictures[0]?.text.femo as string)).toMatchObject({ sampler: "deis", samplerSettings: settings });
    expect(pictures[0]?.text.parameters).toContain("Sampler: DEIS");
    const cases: [string, string][] = [
      ['{"sampler": "deis", "order": 3}', "sampler: order: deis has no such setting; there are"],
      ['{"sampler": "deis", "betaEnd": 1}', "sampler: betaEnd: the model's own"],
      ['{"sampler": "heun"}', "sampler: expected one of ddim"],
      ['{"solverOrder": 3}', "--sampler: sampler: "],
      ["{sampler: deis}", "--sampler: not valid JSON at line 1"],
    ];
    for (const [sampler, message] of cases) {
      expect(await draw(sampler)).toMatchObject({ code: 2, stderr: expect.stringContaining(message) });
    }
  });

  test("a file that exists is kept unless --force is given", async () => {
    const cwd = folder();
    writeFileSync(join(cwd, "a.png"), "kept");
    const args = ["generate", "micah", ...model, "--steps", "2", "--out", "a.png"];
    const refused = await femo(args, { cwd });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("--force");
    expect(readFileSync(join(cwd, "a.png"), "utf8")).toBe("kept");
    expect((await femo([...args, "--force"], { cwd })).code).toBe(0);
    expect(decodePng(readFileSync(join(cwd, "a.png"))).image.width).toBe(tiny.size);
  });

  test("Ctrl-C leaves no file", async () => {
    const cwd = folder();
    const { code } = await femo(["generate", "micah", ...model, "--steps", "50", "--num-images-per-prompt", "500"], {
      cwd,
      interruptAt: "step 2 of 50",
    });
    expect(code).toBe(130);
    expect(readdirSync(cwd)).toEqual([]);
  });

  test.each([
    [["generate", "micha", "--model", "avatars-dit"], 2, '"micah"'],
    [["generate", "micah", "--model", "avatars-dit", "--sampler", "heun"], 2, "ddim, dpm-solver++"],
    [["generate", "micah", "--sampler", "nowhere.json"], 1, "nowhere.json cannot be read"],
    [["generate", "micah", "--stepz", "4"], 2, "--steps"],
    [["generate", "micah", "--interval", "4"], 2, "--cache"],
    [["generate", "micah", "--cache", "fora", "--order", "2"], 2, "order"],
    [["generate", "micah", "--steps", "four"], 2, "Expected a number"],
    [["generate", "micah", "--timestep-spacing", "even"], 2, "leading, trailing, linspace, dit"],
    [["generate", "micah", "--seed", "1.5"], 2, "-2^63 to 2^64 - 1"],
    [["generate", "micah", "--seed", "18446744073709551616"], 2, "-2^63 to 2^64 - 1"],
    [["generate", "micah", "--num-images-per-prompt", "0"], 2, "from 1 to 100000"],
    [["generate", "micah", "--num-images-per-prompt", "1000000000000"], 2, "from 1 to 100000"],
    [["generate", "micah", "--num-images-per-prompt", "100000"], 2, "65536 images"],
    [["compare", "--steps", "1000000000000"], 2, "numInferenceSteps"],
    [["compare", "--model", "avatars-dit", "--classes", "0", "--num-images-per-prompt", "100000"], 2, "images in all"],
    [["compare", "--speedup", "3", "--interval", "3"], 2, "--interval"],
    [["compare", "--speedup", "0"], 2, "speedup"],
    [["compare", "--cache", "all,fora"], 2, "Expected one of"],
    [["compare", "--converged-steps", "0"], 2, "convergedSteps"],
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

test("femo compare ranks all methods at one speed-up, against a converged reference too; stdout is JSON alone", async () => {
  const cwd = folder();
  const args = ["compare", ...model, "--classes", "micah,ibis", "--steps", "12", "--batch-size", "2", "--json"];
  const { code, stdout } = await femo([...args, "--cache", "all", "--speedup", "1.6", "--converged-steps", "20"], {
    cwd,
  });
  expect(code).toBe(0);
  const { rows, converged } = JSON.parse(stdout);
  expect(converged).toEqual({ numInferenceSteps: 20, timestepSpacing: "leading" });
  expect(rows.map(({ cache }: { cache: { method: string } }) => cache.method)).toEqual([
    // Those need ratios, a U-Net, and a solver that was fitted.
    ...cacheMethods.filter((method) => !["magCache", "deepCache", "calibrated"].includes(method)),
    "none",
    "none",
  ]);
  for (const { name, cache, psnr, psnrConverged } of rows.slice(1)) {
    // Chipmunk keeps two blocks whole, which is all that the model has: its images are identical.
    for (const { mean, median, tenthPercentile } of cache.method === "chipmunk"
      ? [psnrConverged]
      : [psnr, psnrConverged]) {
      expect(
        [mean, median, tenthPercentile].every((value) => value > 0),
        name,
      ).toBe(true);
      expect(tenthPercentile, name).toBeLessThanOrEqual(median);
    }
  }
  expect(readFileSync(join(cwd, "femo-report", "index.html"), "utf8")).toContain("20 steps, leading spacing");
});

test("npx finds the command in a clone that was built", async () => {
  const { stdout } = await promisify(execFile)("npx", ["--no", "--", "femo", "--version"], {
    shell: process.platform === "win32",
  });
  expect(stdout.trim()).toBe(JSON.parse(readFileSync("package.json", "utf8")).version);
});

test("femo classes and femo --version", async () => {
  expect((await femo(["classes"])).stdout).toContain("8\tmicah");
  expect(await femo(["--version"])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
});
