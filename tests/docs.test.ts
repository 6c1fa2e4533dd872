import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import type * as z from "zod/mini";
import { calibrateCommand } from "../src/cli/calibrate.js";
import { classesCommand } from "../src/cli/classes.js";
import { compareCommand } from "../src/cli/compare.js";
import { generateCommand } from "../src/cli/generate.js";
import { metricsCommand } from "../src/cli/metrics.js";
import { addCommon, addModel, type CommandContext } from "../src/cli/options.js";
import { studyCommand } from "../src/cli/study.js";
import { weightsIn } from "../src/denoising/dtype.js";
import { type Graph, sizeOf, type Value } from "../src/graph/index.js";
import { type CachePresets, DiffusionPipeline, type PretrainedOptions } from "../src/index.js";
import { defaultPresets } from "../src/methods/index.js";
import { methodTable } from "../src/methods/table.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../src/models/autoencoder-kl.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../src/models/clip-text.js";
import { dit, ditConfigFromJson } from "../src/models/dit.js";
import { flux } from "../src/models/flux.js";
import { fluxDev, fluxSchnell } from "../src/models/flux-config.js";
import { t5ConfigFromJson, t5Encoder } from "../src/models/t5.js";
import { drawingDefaults } from "../src/pipelines/drawing-defaults.js";
import {
  ddimDefaults,
  ddpmDefaults,
  deisDefaults,
  dpmSolverDefaults,
  eulerAncestralDefaults,
  eulerDefaults,
  flowDefaults,
  flowDeisDefaults,
  flowDpmSolverDefaults,
  lcmDefaults,
  multistepDefaults,
  pndmDefaults,
  uniPcDefaults,
} from "../src/samplers/index.js";
import { type CompareOptions, compare } from "../src/studies/index.js";
import { type Linears, type Model, modelLinears, networkLinears, traceCut } from "../src/tracing/index.js";
import { BLOCK_TYPES, type BlockType, packedBlocks } from "../src/weights/gguf-blocks.js";
import { Checkpoint, type ModelFolder, storedBytes, type TensorInfo } from "../src/weights/index.js";
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

test("the commands in the pages have flags that there are", () => {
  const context: CommandContext = { version: "", signal: new AbortController().signal };
  const commands = [generateCommand, compareCommand, calibrateCommand, classesCommand].map((make) => make(context));
  const longFlags = ({ options }: Command): string[] => options.map(({ long }) => long as string);
  const flags = new Map([
    ...commands.map((command) => [command.name(), longFlags(command)] as const),
    ["study", studyCommand({ version: "", signal: new AbortController().signal }).commands.flatMap(longFlags)] as const,
  ]);
  const shown = pages.flatMap((page) =>
    [...read(page).matchAll(/^ {4}npx femo (\w+)((?:[^#\n]*\\\n)*[^#\n]*)/gm)].map(([text, name = "", rest = ""]) => {
      const used = [...rest.matchAll(/(?<= )--[\w-]+/g)].map(([flag]) => flag);
      return { text, unknown: without(used, flags.get(name) ?? []) };
    }),
  );
  expect(shown.length).toBeGreaterThan(10);
  expect(shown.filter(({ unknown }) => unknown.length > 0)).toEqual([]);
});

const tinyFlux = "tests/goldens/flux-pipeline/dev";

describe("docs/options.md has the options that there are", () => {
  /** What the error of an option that does not exist says there is. */
  const named = async (call: (options: object) => unknown): Promise<string[]> => {
    const message = await femoError("E_OPTION", () => call({ attic: 1 }));
    return (message.split("there are ")[1] as string).split(", ").sort();
  };

  test("of requests, and of comparisons", async () => {
    await using classes = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
    await using prompts = await DiffusionPipeline.fromPretrained(tinyFlux, { threads: 1 });
    await using diffusion = await DiffusionPipeline.fromPretrained("tests/goldens/sd-pipeline/sdxl", { threads: 1 });
    expect(firstCells("generate")).toEqual(await named((options) => classes.generate({ classLabels: 0, ...options })));
    const ofPrompts = await named((options) => prompts.generate({ prompt: "", ...options }));
    expect(firstCells("Prompts")).toEqual(without(ofPrompts, firstCells("generate")));
    expect(without(firstCells("generate"), ofPrompts)).toEqual(["classLabels"]);
    const ofDiffusion = await named((options) => diffusion.generate({ prompt: "", ...options }));
    expect(firstCells("Prompts of Stable Diffusion")).toEqual(without(ofDiffusion, firstCells("generate")));
    expect(firstCells("compare")).toEqual(await named((options) => compare(classes, options as CompareOptions)));
  });

  test("of opening", async () => {
    const open = (options: object) => DiffusionPipeline.fromPretrained("avatars-dit", options as PretrainedOptions);
    expect(firstCells("fromPretrained")).toEqual(await named(open));
  });

  const fields = methodTable.flatMap(({ name, schema }) =>
    Object.keys((schema as z.ZodMiniObject).shape)
      .filter((field) => field !== "method")
      .map((field) => ({ method: name, field })),
  );

  test("of caching methods", () => {
    const found = rowsUnder("docs/options.md", "Caching methods").flatMap(([field, methods]) =>
      quoted(methods).map((method) => `${method} ${quoted(field)[0]}`),
    );
    expect(found.sort()).toEqual(fields.map(({ method, field }) => `${method} ${field}`).sort());
  });

  test("and their presets", async () => {
    await using flux = await DiffusionPipeline.fromPretrained(tinyFlux, { threads: 1 });
    await using diffusion = await DiffusionPipeline.fromPretrained("tests/goldens/sd-pipeline/sdxl", { threads: 1 });
    const embedded = JSON.parse(read("models/avatars-dit/presets.json"));
    const wanted = Object.entries(defaultPresets).flatMap(([method, preset]) =>
      Object.entries(preset).map(([field, value]) => {
        const own = embedded[method]?.[field];
        const text = JSON.stringify(value);
        const others = [flux, diffusion].map(({ presets }) => {
          const other = JSON.stringify(Object(presets[method as keyof CachePresets])[field]);
          return other === text ? "" : other;
        });
        return [method, field, text, own === undefined ? "" : JSON.stringify(own), ...others].join(" ");
      }),
    );
    const found = rowsUnder("docs/options.md", "Presets").map(([method, field, ...values]) =>
      [quoted(method)[0], quoted(field)[0], ...values].join(" "),
    );
    expect(found.sort()).toEqual(wanted.sort());
  });

  test.each<[string, object[]]>([
    [
      "Samplers",
      [
        ...[ddimDefaults, dpmSolverDefaults, uniPcDefaults, deisDefaults, pndmDefaults, eulerDefaults],
        ...[eulerAncestralDefaults, ddpmDefaults, lcmDefaults, multistepDefaults],
      ],
    ],
    ["Samplers of flows", [flowDefaults, flowDpmSolverDefaults, flowDeisDefaults]],
  ])("of samplers, with their defaults: %s", (heading, defaults) => {
    const text = (value: unknown): string => (value === undefined ? "" : JSON.stringify(value));
    const found = rowsUnder("docs/options.md", heading)
      .filter(([setting = "", ...cells]) => setting.startsWith("`") && cells.length > defaults.length) // not what they are
      .map(([setting, ...cells]) => `${quoted(setting)[0]} ${cells.slice(0, defaults.length).join(" ")}`);
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
    for (const study of studyCommand({ version: "", signal: new AbortController().signal }).commands) {
      const draws = study.options.some(({ long }) => long === "--model");
      expect(firstCells(`femo study ${study.name()}`)).toEqual(without(flagsOf(study), draws ? ofCommon : []));
    }
  });
});

test("docs/metrics.md has the commands and options that there are", () => {
  const page = read("docs/metrics.md");
  const context = { version: "", signal: new AbortController().signal } as CommandContext;
  for (const command of metricsCommand(context).commands) {
    expect(page).toContain(`femo metrics ${command.name()} `);
    for (const { long } of command.options) expect(page, command.name()).toMatch(new RegExp(`${long}\\b`));
  }
});

test("docs/errors.md has the codes that there are", () => {
  const codes = [...read("src/errors.ts").matchAll(/^ {2}\| "(E_\w+)"/gm)].map(([, code]) => code);
  expect(codes.length).toBeGreaterThan(0);
  expect(rowsUnder("docs/errors.md", "Errors").map(([code]) => quoted(code)[0])).toEqual(codes);
});

describe("docs/models.md has what follows from the code:", () => {
  const ofModel = (model: Model): [Value[], Linears] => [
    traceCut(model, { hoisted: "inline" }).graph.reachable().weights,
    modelLinears(model),
  ];
  const ofGraph = (graph: Graph, linears: Linears): [Value[], Linears] => [graph.reachable().weights, linears];
  const none: Linears = { main: [], modulation: [], other: [] };
  const t5 = t5Encoder(
    t5ConfigFromJson({ d_model: 4096, d_ff: 10_240, num_layers: 24, num_heads: 64, feed_forward_proj: "gated-gelu" }),
  );
  const clip = clipTextConfigFromJson({ hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 });
  const widths = [128, 256, 512, 512];
  const decoder = autoencoderKLConfigFromJson({
    ...{ latent_channels: 16, block_out_channels: widths, layers_per_block: 2, use_post_quant_conv: false },
    ...{
      up_block_types: widths.map(() => "UpDecoderBlock2D"),
      down_block_types: widths.map(() => "DownEncoderBlock2D"),
    },
  });
  const models: Readonly<Record<string, [Value[], Linears]>> = {
    "FLUX.1-dev": ofModel(flux(fluxDev)),
    "FLUX.1-schnell": ofModel(flux(fluxSchnell)),
    "T5-XXL": ofGraph(t5, networkLinears(t5)),
    "CLIP-L": ofGraph(clipTextEncoder(clip, ["pooled"]), none),
    "FLUX.1's decoder": ofGraph(autoencoderKLDecoder(decoder), none),
    "DiT-XL/2 in diffusers' layout": ofModel(dit(ditConfigFromJson({ in_channels: 4, out_channels: 8 }))),
  };
  /** In 10^9: how many parameters, and the bytes in each type, of all weights or of some. */
  const sizes = (name: string, count: typeof bytesOf = bytesOf, isOne = (_: string): boolean => true): string[] => {
    const [values, linears] = models[name] as [Value[], Linears];
    const stored = values.map(({ name, shape }): TensorInfo => {
      const dims = shape as readonly number[];
      return { name, dtype: "float32", shape: dims, file: "", offset: 0, byteLength: 4 * sizeOf(dims) };
    });
    const parameters = stored.filter(({ name }) => isOne(name)).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
    const checkpoint = Checkpoint.fromTensors(name, stored);
    const bytes = (["float32", "int8", "int4"] as const).map((dtype) =>
      count(
        weightsIn(dtype, checkpoint, () => linears),
        isOne,
      ),
    );
    return [(parameters / 1e9).toFixed(3), ...bytes.map((count) => (count / 1e9).toFixed(2))];
  };
  const bytesOf = (checkpoint: Checkpoint, isOne: (name: string) => boolean): number =>
    checkpoint.tensors().reduce((sum, tensor) => sum + (isOne(tensor.name) ? storedBytes(tensor) : 0), 0);
  const computedBytes = (checkpoint: Checkpoint): number =>
    [...checkpoint.derived().values()].reduce((sum, tensor) => sum + storedBytes(tensor), 0);
  const table = (heading: string): string[][] => rowsUnder("docs/models.md", heading);

  test("what models take in memory, in parts and on disk", () => {
    expect(table("Weights in memory")).toEqual(Object.keys(models).map((name) => [name, ...sizes(name)]));
    const { main, modulation } = (models["FLUX.1-dev"] as [Value[], Linears])[1];
    const parts = [
      (name: string) => main.includes(name),
      (name: string) => modulation.includes(name),
      (name: string) => !main.includes(name) && !modulation.includes(name),
    ];
    const found = table("Parts of the transformer").map(([, ...cells]) => cells);
    expect(found).toEqual(parts.map((isOne) => sizes("FLUX.1-dev", bytesOf, isOne)));
    const onDisk = table("Computed weights on disk");
    expect(onDisk).toEqual(onDisk.map(([name = ""]) => [name, ...sizes(name, computedBytes).slice(1)]));
  });

  test("bits of GGUF's blocks", () => {
    const rows = Object.entries(BLOCK_TYPES).map(([type, { elements, bytes }]) => {
      const { bits, block, minimums } = packedBlocks(type as BlockType, new Uint8Array(bytes), 1, elements);
      return [`\`${type.toUpperCase()}\``, `${(8 * bytes) / elements}`, `${bits + (minimums ? 64 : 32) / block}`];
    });
    expect(table("GGUF in memory").sort()).toEqual(rows.sort());
  });

  test("fields of defaults.json", async () => {
    const [, json = ""] = /^```json\n([\s\S]*?)^```/m.exec(read("docs/models.md")) ?? [];
    const folder = { name: "", measured: async () => JSON.parse(json) } as unknown as ModelFolder;
    expect(await drawingDefaults(folder)).toEqual(JSON.parse(json));
  });
});
