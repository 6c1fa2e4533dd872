import { execFile } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { DiffusionPipeline, devices, type PretrainedOptions } from "../../src/pipelines/index.js";
import { embeddedModelAt, embeddedModels } from "../../src/platform/node/embedded.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { safetensorsHeader } from "../../src/weights/safetensors-header.js";
import { openPretrained, pretrainedClasses } from "../platform/open.js";
import { femoError } from "../weights/helpers.js";

const AVATARS = fileURLToPath(new URL("../../models/avatars-dit", import.meta.url));
const goldens = (name: string): string => fileURLToPath(new URL(`../goldens/${name}`, import.meta.url));
const TINY = goldens("dit-pipeline");
const WEIGHTS = "transformer/diffusion_pytorch_model.safetensors";

const root = realpathSync(mkdtempSync(join(tmpdir(), "femo-pretrained-")));
afterAll(() => rmSync(root, { recursive: true }));
const cwd = process.cwd();
afterEach(() => process.chdir(cwd));

let copies = 0;
/** A copy of the tiny model, in a folder of its own. */
function copy(name = "model"): string {
  const folder = join(root, String(copies++), name);
  cpSync(TINY, folder, { recursive: true });
  return folder;
}

/** Opens a model and says what it is called. */
async function open(path: string, options: PretrainedOptions = {}): Promise<string> {
  const pipeline = await DiffusionPipeline.fromPretrained(path, { threads: 1, ...options });
  await pipeline.close();
  return pipeline.name;
}

describe("options", () => {
  const refused = (path: unknown, options?: unknown) =>
    femoError("E_OPTION", () => DiffusionPipeline.fromPretrained(path as string, options as PretrainedOptions));

  test.each([undefined, null, 3, "", {}, ["avatars-dit"]])("a model cannot be %j", async (path) => {
    expect(await refused(path)).toMatch(/^the model: expected its name, such as "avatars-flux".*found /);
  });

  test.each([null, "int8", 3, []])("options cannot be %j", async (options) => {
    expect(await refused("avatars-dit", options)).toContain("options: expected an object");
  });

  test.each(["dtpye", "toString", "env"])(
    "one called %s does not exist, and the message lists those that do",
    async (name) => {
      const message = await refused("no-such-model", { [name]: "int8" });
      expect(message).toContain(`${name}: there is no such option; there are `);
      for (const known of ["variant", "revision", "cacheDir", "device", "threads", "dtype", "vae", "heads", "signal"]) {
        expect(message).toContain(known);
      }
    },
  );

  test.each<[keyof PretrainedOptions, unknown, string]>([
    ["variant", 16, "such as"],
    ["variant", "../x", '"../x"'],
    ["revision", "", "a branch, tag or commit"],
    ["cacheDir", new URL("file:///tmp"), "the path of a folder"],
    ["threads", "2", "a positive integer"],
    ["threads", 0, "a positive integer"],
    ["dtype", null, "one of float32, float16, int8, int4"],
    ["vae", true, "a folder, or owner/name"],
    ["heads", 1.5, "a positive integer"],
    ["signal", {}, "an AbortSignal"],
    ["onProgress", "yes", "a function"],
  ])("%s cannot be %j", async (name, value, expected) => {
    const message = await refused("avatars-dit", { [name]: value });
    expect(message).toContain(`${name}: expected `);
    expect(message).toContain(expected);
  });

  test.each(["gpu", 0, null])("the device cannot be %j", async (device) => {
    expect(await refused("avatars-dit", { device })).toMatch(/device: expected one of auto, cpu, webgpu, .*, found/);
  });

  test("the processor is a device everywhere, and options that are undefined are as if left out", async () => {
    for (const device of ["auto", "cpu"] as const) expect(await open(TINY, { device })).toBe("dit-pipeline");
    const options = ["variant", "revision", "cacheDir", "device", "dtype", "vae", "heads", "signal", "onProgress"];
    expect(await open(TINY, Object.fromEntries(options.map((name) => [name, undefined])))).toBe("dit-pipeline");
  });

  test.each(devices.filter((device) => device !== "auto" && device !== "cpu"))(
    "the device %s computes, or is an error that says what to do",
    async (device) => {
      const found = await open(TINY, { device }).catch((error: Error) => error.message);
      expect(found).toMatch(/^dit-pipeline$|^device: .*take "/i);
    },
  );

  test("those that do not go with a model", async () => {
    expect(await refused(TINY, { revision: "main" })).toContain("revision: only of a model on the Hub");
    expect(await refused("avatars-dit", { revision: "main" })).toContain("revision: only of a model on the Hub");
    expect(await refused(goldens("torch/DiT-tiny.pt"), { revision: "v1" })).toContain("revision: only of a model");
    expect(await refused(TINY, { heads: 2 })).toContain("heads: only with a model file");
    expect(await refused(TINY, { vae: TINY })).toContain("vae: only with a model file");
    expect(await refused("a/b", { revision: "../x" })).toContain(
      'revision: expected a branch, tag or commit, found "../x"',
    );
    expect(await refused("a/b@v1", { revision: "v2" })).toContain(
      'revision: found "v2", but the model is given as "a/b@v1"',
    );
    expect(await refused("a/b@main", { revision: "v2" })).toContain('given as "a/b@main"');
  });

  test.each([
    ["a folder", TINY, {}],
    ["an embedded model", "avatars-dit", {}],
    ["a file", goldens("torch/DiT-tiny.pt"), { heads: 2, vae: goldens("dit-pipeline") }],
  ])("a signal that was aborted rejects with its reason: %s", async (_, path, options) => {
    const reason = new Error("enough");
    await expect(open(path, { ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(pretrainedClasses(path, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test("a signal that is aborted while the model opens", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const opening = open(TINY, { signal: controller.signal });
    controller.abort(reason);
    await expect(opening).rejects.toBe(reason);
  });
});

describe("names", () => {
  test("a folder is called by its own name, however it is given", async () => {
    const folder = copy("my-model");
    expect(await open(folder)).toBe("my-model");
    expect(await open(`${folder}/`)).toBe("my-model");
    process.chdir(folder);
    for (const path of [".", "./", "../my-model", "transformer/.."]) expect(await open(path)).toBe("my-model");
  });

  test("the embedded model is called by its name wherever it is opened from; a folder of the same name is another", async () => {
    expect(embeddedModels()).toContain("avatars-dit");
    const link = join(root, "link");
    symlinkSync(AVATARS, link);
    expect(["avatars-dit", link].map((path) => (path === link ? embeddedModelAt(path) : path))).toEqual([
      "avatars-dit",
      "avatars-dit",
    ]);
    expect(await open("avatars-dit")).toBe("avatars-dit");
    expect(await open(link)).toBe("avatars-dit");
    process.chdir(AVATARS);
    expect(await open(".")).toBe("avatars-dit");
    expect(embeddedModelAt(".")).toBe("avatars-dit");
    expect(embeddedModelAt(copy("avatars-dit"))).toBeUndefined();
    expect(embeddedModelAt(join(root, "nowhere"))).toBeUndefined();
  });
});

describe("what is given as a model", () => {
  test("the index of a pipeline opens its folder", async () => {
    const folder = copy("by-index");
    expect(await open(join(folder, "model_index.json"))).toBe("by-index");
    process.chdir(folder);
    expect(await open("model_index.json")).toBe("by-index");
  });

  test.each(["transformer/config.json", "scheduler/scheduler_config.json"])("%s says what to give", async (file) => {
    for (const run of [() => open(join(TINY, file)), () => pretrainedClasses(join(TINY, file))]) {
      expect(await femoError("E_FILE", run)).toMatch(
        /Give the folder of the whole pipeline, the one with model_index\.json/,
      );
    }
  });

  test("one component of a pipeline says what to give", async () => {
    expect(await femoError("E_FILE", () => open(join(TINY, "transformer")))).toContain("Give the folder above it");
  });
});

describe("weights", () => {
  test("that are there as a variant only, whole or in shards", async () => {
    const half = copy();
    renameSync(join(half, WEIGHTS), join(half, WEIGHTS.replace(".safetensors", ".fp16.safetensors")));
    const sharded = copy();
    const shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    renameSync(join(sharded, WEIGHTS), join(sharded, "transformer", shard));
    const names = (await openCheckpoint(nodeFolder(sharded), `transformer/${shard}`)).names();
    writeFileSync(
      join(sharded, `${WEIGHTS}.index.fp16.json`),
      JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(names.map((name) => [name, shard])) }),
    );
    for (const folder of [half, sharded]) {
      expect(await open(folder)).toBe("model");
      expect(await open(folder, { variant: "fp16" })).toBe("model");
      expect(await femoError("E_FILE", () => open(folder, { variant: "bf16" }))).toContain('There are "fp16"');
    }
  });

  /** Writes the tiny model's weights again, changed. */
  async function rewritten(change: (header: Record<string, unknown>) => Record<string, unknown>): Promise<string> {
    const folder = copy();
    const bytes = readFileSync(join(folder, WEIGHTS));
    const length = Number(bytes.readBigUInt64LE());
    const text = JSON.stringify(change(JSON.parse(bytes.subarray(8, 8 + length).toString())));
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
    writeFileSync(join(folder, WEIGHTS), Buffer.concat([start, Buffer.from(text), bytes.subarray(8 + length)]));
    return folder;
  }
  const draw = async (folder: string) => {
    const pipeline = await DiffusionPipeline.fromPretrained(folder, { threads: 1 });
    try {
      return (await pipeline.generate({ classLabels: 0, numInferenceSteps: 2 })).images[0]?.data;
    } finally {
      await pipeline.close();
    }
  };

  test("whose names training has wrapped draw the same", async () => {
    const rename = (prefix: string) => (header: Record<string, unknown>) =>
      Object.fromEntries(
        Object.entries(header).map(([name, info]) => [name === "__metadata__" ? name : prefix + name, info]),
      );
    const plain = await draw(TINY);
    for (const prefix of ["_orig_mod.", "module."]) {
      const folder = await rewritten(rename(prefix));
      expect((await openCheckpoint(nodeFolder(folder), WEIGHTS)).names()[0]).not.toContain(prefix);
      expect(await draw(folder)).toEqual(plain);
    }
  });

  test("tied, as save_model writes them, draw as when they are stored twice", async () => {
    const [twice, once] = [copy(), copy()];
    const checkpoint = await openCheckpoint(nodeFolder(TINY), WEIGHTS);
    const twin = (name: string) => name.replace("blocks.1.norm1.emb.", "blocks.0.norm1.emb.");
    const write = async (folder: string, names: readonly string[], tied: Record<string, string>): Promise<void> => {
      const tensors = names.map((name) => checkpoint.get(name)).filter((tensor) => tensor !== undefined);
      const header = safetensorsHeader(tensors);
      const json = JSON.parse(new TextDecoder().decode(header.subarray(8)));
      const text = Buffer.from(JSON.stringify({ __metadata__: { format: "pt", ...tied }, ...json }));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(text.length));
      const data = await Promise.all(names.map((name) => checkpoint.readBytes(twin(name))));
      writeFileSync(join(folder, WEIGHTS), Buffer.concat([length, text, ...data]));
    };
    const names = checkpoint.names();
    const left = names.filter((name) => twin(name) !== name);
    expect(left.length).toBeGreaterThan(0);
    await write(twice, names, {});
    await write(
      once,
      names.filter((name) => !left.includes(name)),
      Object.fromEntries(left.map((name) => [name, twin(name)])),
    );
    expect(await draw(once)).toEqual(await draw(twice));
  });

  test("in float64 draw what their float32 originals draw", async () => {
    const folder = copy();
    const checkpoint = await openCheckpoint(nodeFolder(TINY), WEIGHTS);
    const tensors = checkpoint.tensors().map((tensor) => ({ ...tensor, dtype: "float64" as const }));
    const data = await Promise.all(
      tensors.map(async ({ name }) => new Uint8Array(Float64Array.from(await checkpoint.readTensor(name)).buffer)),
    );
    writeFileSync(join(folder, WEIGHTS), Buffer.concat([safetensorsHeader(tensors), ...data]));
    expect(await draw(folder)).toEqual(await draw(TINY));
  });

  test("in a type that does not compute name the file", async () => {
    const folder = copy();
    const tensors = (await openCheckpoint(nodeFolder(TINY), WEIGHTS))
      .tensors()
      .map((tensor) => ({ ...tensor, dtype: "int64" as const }));
    const header = safetensorsHeader(tensors);
    const size = tensors.reduce((sum, { shape }) => sum + 8 * shape.reduce((a, b) => a * b, 1), 0);
    writeFileSync(join(folder, WEIGHTS), Buffer.concat([header, Buffer.alloc(size)]));
    for (const dtype of ["float32", "int8"] as const) {
      const message = await femoError("E_WEIGHT", () => open(folder, { dtype }));
      expect(message).toContain(`${folder}/${WEIGHTS}: `);
      expect(message).toMatch(/expected float32, float16, bfloat16, float64, .*found int64[\s\S]*tensor\.float\(\)/);
    }
  });
});

test("what is no model, where nothing else is known", async () => {
  mkdirSync(join(root, "empty"));
  expect(await femoError("E_FILE", () => open(join(root, "empty")))).toContain("found no model_index.json");
  expect(await femoError("E_FILE", () => openPretrained("nowhere"))).toContain(
    'an embedded model ("avatars-dit", "avatars-flux", "avatars-sd")',
  );
});

test("without the package of the models others open, and an embedded one says which it is", async () => {
  const place = join(root, "package");
  cpSync("dist", join(place, "dist"), { recursive: true });
  cpSync("package.json", join(place, "package.json"));
  mkdirSync(join(place, "node_modules"));
  for (const name of readdirSync(join(cwd, "node_modules")).filter((name) => name !== "femo-models")) {
    symlinkSync(join(cwd, "node_modules", name), join(place, "node_modules", name));
  }
  const run = (code: string) =>
    promisify(execFile)(process.execPath, ["--input-type=module", "-e", code], { cwd: place }).then(
      ({ stdout }) => stdout,
    );
  const open = (model: string): string =>
    `import { DiffusionPipeline } from "./dist/index.js";
     try {
       const pipeline = await DiffusionPipeline.fromPretrained(${JSON.stringify(model)}, { threads: 1 });
       console.log(pipeline.name);
       await pipeline.close();
     } catch (error) { console.log(error.code, error.message); }`;
  expect(await run(open(TINY))).toBe("dit-pipeline\n");
  expect(await run(open("avatars-dit"))).toMatch(
    /^E_FILE avatars-dit: comes with the package femo-models, .*npm install/,
  );
});

describe("classes", () => {
  test("of a folder, an embedded model and a file, without opening their weights", async () => {
    const folder = copy();
    rmSync(join(folder, WEIGHTS));
    const classes = await pretrainedClasses(folder);
    const pipeline = await DiffusionPipeline.fromPretrained(TINY, { threads: 1 });
    await pipeline.close();
    expect(classes).toEqual(pipeline.classes);
    expect((await pretrainedClasses("avatars-dit")).get(8)).toEqual(["micah"]);
    expect((await pretrainedClasses(goldens("torch/DiT-tiny.pt"))).get(1)).toEqual(["1"]);
  });

  test("of what has no transformer", async () => {
    const folder = copy();
    writeFileSync(join(folder, "model_index.json"), JSON.stringify({ _class_name: "DiTPipeline" }));
    expect(await femoError("E_CONFIG", () => pretrainedClasses(folder))).toContain('"transformer"');
    writeFileSync(join(folder, "model_index.json"), JSON.stringify({ _class_name: "P" }));
    expect(await femoError("E_CONFIG", () => pretrainedClasses(folder))).toContain("found P");
  });
});
