import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DiffusionPipeline } from "../../../src/pipelines/index.js";
import { openPretrained } from "../../../src/pipelines/pretrained-node.js";
import { tinyPipeline } from "../../tiny-pipeline.js";
import { femoError } from "../helpers.js";
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
    const pipeline = await openPretrained(REPO, { threads: 1, env: environment(hub, cache) });
    expect(pipeline.name).toBe("tiny");
    expect(hub.downloads()).not.toContain("samples.png");
    expect(await draw(pipeline)).toEqual(await draw(await DiffusionPipeline.fromPretrained(folder, { threads: 1 })));
  } finally {
    remove();
  }
});

test("what is no name of a model says which names there are", async () => {
  expect(await femoError("E_FILE", () => openPretrained("./nowhere"))).toMatch(
    /\.\/nowhere: expected an embedded model \("avatars-dit"\), a folder .* or a model on the Hub/,
  );
});

test("a model that the Hub does not have", async () => {
  const [hub, cache] = [await startHub(), temporaryFolder()];
  const message = await femoError("E_FILE", () => openPretrained("owner/other", { env: environment(hub, cache) }));
  expect(message).toContain("owner/other: found no such model");
});
