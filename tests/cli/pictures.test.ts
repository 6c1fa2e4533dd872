import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { decodePng, encodePng, type RgbImage } from "../../src/images/index.js";
import { DiffusionPipeline } from "../../src/index.js";
import { femo, folder } from "./run.js";

const path = fileURLToPath(new URL("../goldens/sd-pipeline/sd2", import.meta.url));
const model = ["--model", path, "--steps", "3", "--json"];
const [width, height] = [40, 32];
const picture = (of: (i: number) => number): RgbImage => ({
  ...{ width, height },
  data: Uint8Array.from({ length: 3 * width * height }, (_, i) => of(i)),
});
const image = picture((i) => i % 251);
const maskImage = picture((i) => (i > 1800 ? 255 : 0));

/** A folder with pictures, and with what is none. */
function withPictures(): string {
  const cwd = folder();
  writeFileSync(join(cwd, "photo.png"), encodePng(image));
  writeFileSync(join(cwd, "hole.png"), encodePng(maskImage));
  writeFileSync(join(cwd, "small.png"), encodePng({ width: 8, height: 8, data: new Uint8Array(192) }));
  writeFileSync(join(cwd, "cut.png"), encodePng(image).subarray(0, 300));
  return cwd;
}

test("a picture to begin with, and what of it is drawn anew: as the library draws it, and the PNG says so", async () => {
  const cwd = withPictures();
  const args = ["--image", "photo.png", "--mask-image", "hole.png", "--strength", "0.7"];
  const { code, stdout, stderr } = await femo(["generate", "a fox", ...model, ...args], { cwd });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(stdout).report).toMatchObject({ height, width, strength: 0.7 });
  await using pipeline = await DiffusionPipeline.fromPretrained(path);
  const request = { prompt: "a fox", numInferenceSteps: 3, image, maskImage, strength: 0.7 };
  const { images } = await pipeline.generate(request);
  const found = decodePng(readFileSync(join(cwd, "femo-a-fox-0.png")));
  expect(found.image.data).toEqual(images[0]?.data);
  expect(found.text.parameters).toContain("Denoising strength: 0.7");
  expect(JSON.parse(found.text.femo ?? "")).toMatchObject({ height, width, strength: 0.7 });
});

test.each([
  [["--image", "gone.png"], 1, "--image: gone.png cannot be read: ENOENT"],
  [["--image", "."], 1, "--image: . cannot be read: EISDIR"],
  [["--image", "photo.png", "--mask-image", "cut.png"], 1, "--mask-image: cut.png: PNG: "],
  [
    ["--image", "photo.png", "--mask-image", "small.png"],
    2,
    "maskImage: expected 40x32 pixels, as the first image has",
  ],
  [["--mask-image", "hole.png"], 2, "maskImage: expected an image beside it"],
  [["--strength", "0.5"], 2, "strength: expected an image beside it"],
])("%j is refused before anything is drawn", async (args, status, message) => {
  const { code, stdout, stderr } = await femo(["generate", "a fox", ...model, ...args], { cwd: withPictures() });
  expect([code, stdout]).toEqual([status, ""]);
  expect(stderr).toContain(message);
});

test("a file is read before the model is looked for", async () => {
  const args = ["generate", "a fox", "--model", "nowhere", "--image", "gone.png"];
  expect((await femo(args)).stderr).toContain("--image: gone.png");
});
