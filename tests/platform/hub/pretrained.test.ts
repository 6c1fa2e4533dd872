import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { DiffusionPipeline } from "../../../src/pipelines/index.js";
import { tinyPipeline } from "../../tiny-pipeline.js";
import { femoError } from "../../weights/helpers.js";
import { openPretrained, pretrainedClasses } from "../open.js";
import { COMMIT } from "./server.js";
import { environment, REPO, startHub, temporaryFolder } from "./setup.js";

/** The files below a folder, by their paths. */
const contentsOf = (folder: string): Record<string, Uint8Array> =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(folder.length + 1), Uint8Array.from(readFileSync(path))]),
  );

async function draw(pipeline: DiffusionPipeline): Promise<Uint8Array | undefined> {
  try {
    const { images } = await pipeline.generate({ classLabels: "micah", numInferenceSteps: 2, seed: 5 });
    return images[0]?.data;
  } finally {
    await pipeline.close();
  }
}

test("a model from the Hub draws what the same folder draws, under its own name", async () => {
  const { folder, remove } = await tinyPipeline();
  try {
    const [hub, cache] = [await startHub({ ...contentsOf(folder), "samples.png": "not needed" }), temporaryFolder()];
    const pipeline = await openPretrained(REPO, { threads: 1 }, { env: environment(hub, cache) });
    expect(pipeline.name).toBe(REPO);
    expect(hub.downloads()).not.toContain("samples.png");
    expect(await draw(pipeline)).toEqual(await draw(await DiffusionPipeline.fromPretrained(folder, { threads: 1 })));
  } finally {
    remove();
  }
});

test("what is no name of a model says which names there are", async () => {
  expect(await femoError("E_FILE", () => openPretrained("./nowhere"))).toMatch(
    /\.\/nowhere: expected an embedded model \("avatars-dit", "avatars-flux", "avatars-sd"\), a folder .* or a model on the Hub/,
  );
});

test("a model that the Hub does not have", async () => {
  const [hub, cache] = [await startHub(), temporaryFolder()];
  const message = await femoError("E_FILE", () => openPretrained("owner/other", {}, { env: environment(hub, cache) }));
  expect(message).toContain("owner/other: found no such model");
});

const AVATARS = fileURLToPath(new URL("../../../models/avatars-dit", import.meta.url));
const TINY = fileURLToPath(new URL("../../goldens/dit-pipeline", import.meta.url));
const WEIGHTS = "transformer/diffusion_pytorch_model.safetensors";

test("a variant, a revision and a cache folder, each as asked; the name is that of the repository", async () => {
  const { [WEIGHTS]: weights, ...others } = contentsOf(TINY);
  const contents = { ...others, "transformer/diffusion_pytorch_model.fp16.safetensors": weights };
  const [hub, cache, other] = [await startHub(contents), temporaryFolder(), temporaryFolder()];
  hub.refs.set("refs/pr/1", COMMIT);
  const access = { env: environment(hub, cache) };
  for (const [model, options] of [
    [REPO, {}],
    [REPO, { variant: "fp16", cacheDir: other }],
    [REPO, { revision: "refs/pr/1" }],
    [`${REPO}@refs/pr/1`, { revision: "refs/pr/1" }],
  ] as const) {
    const pipeline = await openPretrained(model, { threads: 1, ...options }, access);
    await pipeline.close();
    expect(pipeline.name).toBe(REPO);
  }
  for (const folder of [join(cache, "hub"), other]) expect(readdirSync(folder)).toEqual(["models--owner--tiny"]);
  expect(hub.requests.map(({ path }) => decodeURIComponent(path))).toContain(`/api/models/${REPO}/revision/refs/pr/1`);
  const message = await femoError("E_FILE", () => openPretrained(REPO, { variant: "bf16" }, access));
  expect(message).toContain(`${REPO}: no component has weights of the variant "bf16". There are "fp16"`);
});

test("classes: two configs are downloaded, and nothing else", async () => {
  const [hub, cache] = [await startHub(contentsOf(AVATARS)), temporaryFolder()];
  const classes = await pretrainedClasses(REPO, {}, { env: environment(hub, cache) });
  expect(classes.get(8)).toEqual(["micah"]);
  expect(hub.downloads().sort()).toEqual(["model_index.json", "transformer/config.json"]);
});

test("five openings at once download each file once", async () => {
  const [hub, cache] = [await startHub(contentsOf(TINY)), temporaryFolder()];
  const open = () => openPretrained(REPO, { threads: 1 }, { env: environment(hub, cache) });
  const pipelines = await Promise.all(Array.from({ length: 5 }, open));
  await Promise.all(pipelines.map((pipeline) => pipeline.close()));
  expect(new Set(hub.downloads()).size).toBe(hub.downloads().length);
});
