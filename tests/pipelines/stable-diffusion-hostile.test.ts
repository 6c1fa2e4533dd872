import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { DiffusionPipeline } from "../../src/pipelines/diffusion-pipeline.js";
import { familyOf } from "../../src/pipelines/families/index.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { memoryFolder, openModelFolder } from "../../src/weights/index.js";
import { engineForTests } from "../runtime/helpers.js";

const goldens = fileURLToPath(new URL("../goldens/sd-pipeline", import.meta.url));
const sessions = new Sessions(engineForTests(), Number.POSITIVE_INFINITY);
const context = {
  ...{
    sessions,
    dtype: "float32" as const,
    maxWeightBytes: Number.POSITIVE_INFINITY,
    int8TimesAsFast: async () => 1,
    lora: [],
  },
  keep: async <T>(checkpoint: T) => checkpoint,
};

/** The files of a pipeline, by path. */
function filesOf(model: string): Map<string, Uint8Array> {
  const folder = join(goldens, model);
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== "golden.safetensors")
    .map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.map((path) => [relative(folder, path), Uint8Array.from(readFileSync(path))]));
}

/** Opens it, checks a request and traces its graphs: all but running them. */
async function planned(files: ReadonlyMap<string, Uint8Array>): Promise<number> {
  const opened = await openModelFolder(memoryFolder("m", files), { model: "m" });
  const pipeline = DiffusionPipeline.of(await familyOf(opened).open(opened, context));
  const request = { prompt: "a fox", numInferenceSteps: 3, cache: "femo" as const };
  return pipeline.plannedFlops(request)?.done ?? 0;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** Where in a value there is something. */
const pathsIn = (value: Json): (string | number)[][] =>
  typeof value !== "object" || value === null
    ? [[]]
    : [
        [],
        ...Object.entries(value).flatMap(([key, inside]) =>
          pathsIn(inside as Json).map((path) => [Array.isArray(value) ? Number(key) : key, ...path]),
        ),
      ];
function replaced(value: Json, [key, ...rest]: readonly (string | number)[], by: Json | undefined): Json | undefined {
  if (key === undefined) return by;
  const copy = structuredClone(value) as Record<string | number, Json>;
  const inside = replaced(copy[key] as Json, rest, by);
  if (inside !== undefined) copy[key] = inside;
  else if (Array.isArray(copy)) copy.splice(Number(key), 1);
  else delete copy[key];
  return copy;
}

/** What configs have, and what they should not. */
const values: readonly (Json | undefined)[] = [
  ...[undefined, null, true, false, 0, 1, 2, 3, 4, 7, 8, 16, 64, 0.5, -1, 1e-5, 1e9, 2 ** 53, -1e300, 1e308],
  ...[
    "",
    "x",
    "silu",
    "epsilon",
    "v_prediction",
    "sample",
    "trailing",
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "DDIMScheduler",
  ],
  ...["../..", "__proto__", "text_time", "constructor"],
  ...[[], [1], [4, 8], [8, 8, 8], [[1], [2]], ["x"], {}, { a: 1 }],
];

test("the pipelines themselves are planned", async () => {
  for (const model of ["sd1", "sd2", "sdxl", "refiner", "lcm"])
    expect(await planned(filesOf(model))).toBeGreaterThan(0);
});

describe.each<[model: string, file: string]>([
  ["sd2", "model_index.json"],
  ["sdxl", "model_index.json"],
  ["sd2", "unet/config.json"],
  ["sdxl", "unet/config.json"],
  ["sd1", "scheduler/scheduler_config.json"],
  ["sd2", "scheduler/scheduler_config.json"],
  ["sdxl", "scheduler/scheduler_config.json"],
  ["lcm", "scheduler/scheduler_config.json"],
  ["sd2", "vae/config.json"],
  ["sd2", "text_encoder/config.json"],
])("%s with any %s", (model, file) => {
  const files = filesOf(model);
  const config = JSON.parse(new TextDecoder().decode(files.get(file))) as Json;
  const paths = pathsIn(config).filter((path) => path.length > 0);
  const change = fc.tuple(fc.constantFrom(...paths), fc.constantFrom(...values));

  test("is a model or a FemoError", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
        const changed = changes.reduce<Json>((value, [path, by]) => {
          const isThere = path.slice(0, -1).reduce<unknown>((at, key) => Object(at)[key], value);
          return typeof isThere === "object" && isThere !== null ? (replaced(value, path, by) ?? null) : value;
        }, config);
        try {
          await planned(new Map([...files, [file, new TextEncoder().encode(JSON.stringify(changed))]]));
        } catch (error) {
          expect(error).toBeInstanceOf(FemoError);
          expect((error as Error).message).not.toMatch(/undefined|\[object/);
        }
      }),
      { numRuns: 40 },
    );
  });
});
