import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import type { z } from "zod";
import { calibrateCommand } from "../src/cli/calibrate.js";
import { classesCommand } from "../src/cli/classes.js";
import { compareCommand } from "../src/cli/compare.js";
import { generateCommand } from "../src/cli/generate.js";
import { addCommon, addModel, type CommandContext } from "../src/cli/options.js";
import { studyCommand } from "../src/cli/study.js";
import { DiffusionPipeline, type PretrainedOptions } from "../src/index.js";
import { defaultPresets } from "../src/methods/index.js";
import { methodTable } from "../src/methods/table.js";
import {
  ddimDefaults,
  dpmSolverDefaults,
  flowDefaults,
  flowDpmSolverDefaults,
  multistepDefaults,
} from "../src/samplers/index.js";
import { type CompareOptions, compare } from "../src/studies/index.js";
import { femoError } from "./weights/helpers.js";

const read = (file: string): string => readFileSync(file, "utf8");
const pages = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"], {
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "" && existsSync(file));

/** A page without its code, in which nothing is a link or a heading. */
const prose = (file: string): string => read(file).replaceAll(/^```[\s\S]*?^```/gm, "");
const anchors = (file: string): string[] =>
  [...prose(file).matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

test.each(pages)("the relative links of %s lead somewhere", (page) => {
  const links = [...prose(page).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target as string)
    .filter((target) => !/^[a-z]+:/.test(target));
  const broken = links.filter((target) => {
    const [path, anchor] = target.split("#") as [string, string | undefined];
    const file = path === "" ? page : join(dirname(page), path);
    return !existsSync(file) || (anchor !== undefined && !anchors(file).includes(anchor));
  });
  expect(broken).toEqual([]);
});

const diffs = pages.flatMap((page) =>
  [...read(page).matchAll(/^```diff\n([\s\S]*?)^```/gm)].map(([, diff]) => ({ page, diff: diff as string })),
);
test.each(diffs)("the diff in $page applies", ({ diff }) => {
  execFileSync("git", ["apply", "--check", "-"], { input: diff, stdio: "pipe" });
});

test("what the diffs add fits the code that is there", { timeout: 300_000 }, () => {
  const copy = mkdtempSync(join(tmpdir(), "femo-diffs-"));
  try {
    for (const part of ["src", "tests", "benchmarks", "dist", "package.json", "tsconfig.json"]) {
      cpSync(part, join(copy, part), { recursive: true });
    }
    symlinkSync(resolve("node_modules"), join(copy, "node_modules"));
    execFileSync("git", ["apply", "-"], { cwd: copy, input: diffs.map(({ diff }) => diff).join("") });
    const added = diffs.flatMap(({ diff }) => [...diff.matchAll(/^\+\+\+ b\/(.*)$/gm)].map(([, file]) => file));
    const config = join(copy, "tsconfig.pages.json");
    writeFileSync(config, JSON.stringify({ extends: "./tsconfig.json", include: ["src", ...added] }));
    const compiler = [resolve("node_modules/typescript/bin/tsc"), "--noEmit", "-p", config];
    const { stdout } = spawnSync(process.execPath, compiler, { encoding: "utf8" });
    expect(stdout).toBe("");
  } finally {
    rmSync(copy, { recursive: true });
  }
});

/** The rows of the tables under a heading, up to the next of any level, without heads. */
function rowsUnder(page: string, heading: string): string[][] {
  const [, section] = read(page).split(new RegExp(`^#+ ${heading}$`, "m"));
  if (section === undefined) throw new Error(`${page} has no heading "${heading}"`);
  return section
    .split(/^#/m)[0]
    ?.split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    )
    .slice(2) as string[][];
}
const quoted = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name as string);
const firstCells = (heading: string): string[] =>
  rowsUnder("docs/options.md", heading)
    .map(([first]) => quoted(first)[0] as string)
    .sort();

const without = (all: readonly string[], some: readonly string[]): string[] =>
  all.filter((item) => !some.includes(item));

describe("docs/options.md has the options that there are", () => {
  /** What the error of an option that does not exist says there is. */
  const named = async (call: (options: object) => unknown): Promise<string[]> => {
    const message = await femoError("E_OPTION", () => call({ attic: 1 }));
    return (message.split("there are ")[1] as string).split(", ").sort();
  };

  test("of requests, and of comparisons", async () => {
    await using classes = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
    await using prompts = await DiffusionPipeline.fromPretrained("tests/goldens/flux-pipeline/dev", { threads: 1 });
    expect(firstCells("generate")).toEqual(await named((options) => classes.generate({ classLabels: 0, ...options })));
    const ofPrompts = await named((options) => prompts.generate({ prompt: "", ...options }));
    expect(firstCells("Prompts")).toEqual(without(ofPrompts, firstCells("generate")));
    expect(without(firstCells("generate"), ofPrompts)).toEqual(["classLabels"]);
    expect(firstCells("compare")).toEqual(await named((options) => compare(classes, options as CompareOptions)));
  });

  test("of opening", async () => {
    const open = (options: object) => DiffusionPipeline.fromPretrained("avatars-dit", options as PretrainedOptions);
    expect(firstCells("fromPretrained")).toEqual(await named(open));
  });

  const fields = methodTable.flatMap(({ name, schema }) =>
    Object.keys((schema as z.ZodObject).shape)
      .filter((field) => field !== "method")
      .map((field) => ({ method: name, field })),
  );

  test("of caching methods", () => {
    const found = rowsUnder("docs/options.md", "Caching methods").flatMap(([field, methods]) =>
      quoted(methods).map((method) => `${method} ${quoted(field)[0]}`),
    );
    expect(found.sort()).toEqual(fields.map(({ method, field }) => `${method} ${field}`).sort());
  });

  test("and their presets", () => {
    const embedded = JSON.parse(read("models/avatars-dit/presets.json"));
    const wanted = Object.entries(defaultPresets).flatMap(([method, preset]) =>
      Object.entries(preset).map(([field, value]) => {
        const own = embedded[method]?.[field];
        return `${method} ${field} ${JSON.stringify(value)} ${own === undefined ? "" : JSON.stringify(own)}`;
      }),
    );
    const found = rowsUnder("docs/options.md", "Presets").map(
      ([method, field, paper, own]) => `${quoted(method)[0]} ${quoted(field)[0]} ${paper} ${own}`,
    );
    expect(found.sort()).toEqual(wanted.sort());
  });

  test.each<[string, object[]]>([
    ["Samplers", [ddimDefaults, dpmSolverDefaults, multistepDefaults]],
    ["Samplers of flows", [flowDefaults, flowDpmSolverDefaults]],
  ])("of samplers, with their defaults: %s", (heading, defaults) => {
    const text = (value: unknown): string => (value === undefined ? "" : JSON.stringify(value));
    const found = rowsUnder("docs/options.md", heading).map(
      ([setting, ...cells]) => `${quoted(setting)[0]} ${cells.slice(0, defaults.length).join(" ")}`,
    );
    const samplers = defaults.map((own): Record<string, unknown> => ({ ...own }));
    const settings = [...new Set(samplers.flatMap((own) => Object.keys(own)))];
    const wanted = settings.map((name) => `${name} ${samplers.map((own) => text(own[name])).join(" ")}`);
    expect(found.sort()).toEqual(wanted.sort());
  });

  const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const context: CommandContext = { version: "", signal: new AbortController().signal };
  const flagsOf = ({ options }: Command): string[] => options.map(({ flags }) => flags).sort();
  const model = (command: Command) => addModel(command.createCommand("model"));
  const common = (command: Command) => addCommon(command.createCommand("common"), { images: "", batchSize: "" });

  test("of commands", () => {
    const generate = generateCommand(context);
    const [ofModel, ofCommon] = [flagsOf(model(generate)), flagsOf(common(generate))];
    expect(firstCells("Which model")).toEqual(ofModel);
    expect(firstCells("Of generate and compare")).toEqual(without(ofCommon, ofModel));
    const ofFields = [...new Set(fields.map(({ field }) => `--${kebab(field)} <value>`))];
    const ofGenerate = without(flagsOf(generate), ofCommon);
    expect(without(ofFields, ofGenerate)).toEqual([]);
    expect(firstCells("femo generate")).toEqual(["--<field> <value>", ...without(ofGenerate, ofFields)].sort());
    expect(firstCells("femo compare")).toEqual(without(flagsOf(compareCommand(context)), ofCommon));
    const calibrate = flagsOf(calibrateCommand(context));
    expect(firstCells("femo calibrate")).toEqual(without(calibrate, ofCommon));
    expect(without(ofCommon, calibrate)).toEqual(["--decode-tile-size <n>", "--force", "--json"]);
    expect(flagsOf(classesCommand(context))).toEqual(ofModel);
    const [costs, ...others] = studyCommand().commands;
    expect(others).toEqual([]);
    expect(firstCells("femo study costs")).toEqual(flagsOf(costs as Command));
  });
});

test("docs/errors.md has the codes that there are", () => {
  const codes = [...read("src/errors.ts").matchAll(/^ {2}\| "(E_\w+)"/gm)].map(([, code]) => code);
  expect(codes.length).toBeGreaterThan(0);
  expect(rowsUnder("docs/errors.md", "Errors").map(([code]) => quoted(code)[0])).toEqual(codes);
});
