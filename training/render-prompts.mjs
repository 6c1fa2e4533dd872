/**
 * Renders captioned avatars for the text-to-image model: five DiceBear styles at 128x128 RGB.
 *
 *   node render-prompts.mjs --out DIR [--train 200000] [--heldout 10000] [--captions 6] [--workers 2] [--resume]
 *
 * Writes, for each split (held-out first, so that training may begin on the first part),
 *   <split>_images.bin      uint8 [N, 128, 128, 3], RGB
 *   <split>_attributes.bin  uint8 [N, attributes], positions in the lists of index.json
 *   <split>_captions.txt    one JSON array of descriptions a line
 *   <split>_prompts.txt     one complete description a line, to judge a model by
 * and index.json (attributes and their values, counts, how many held-out pictures training also has).
 *
 * Picture and captions are pure functions of the split and the row. Two rows with the same attributes
 * are the same picture. --resume keeps the pictures that are there.
 */
import {
  closeSync,
  createWriteStream,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import * as collection from "@dicebear/collection";
import { createAvatar } from "@dicebear/core";
import { Resvg } from "@resvg/resvg-js";
import { ATTRIBUTES, attributeValues, caption, dicebearOptions, drawAttributes, randomSource } from "./captions.mjs";

const SIZE = 128;
const PIXELS = SIZE * SIZE;
const FIRST_SEED = { train: 0, heldout: 1_000_000_000, trainPrompts: 2_000_000_000, heldoutPrompts: 3_000_000_000 };
const CHUNK = 200;

const COLLECTION = {
  lorelei: collection.lorelei,
  adventurer: collection.adventurer,
  "big-smile": collection.bigSmile,
  micah: collection.micah,
  "pixel-art": collection.pixelArt,
};

const sourceOf = (split, row) => randomSource(Math.imul(FIRST_SEED[split] + row + 1, 0x9e3779b1));

/** RGB bytes of the picture that `attributes` describe. */
function renderAvatar(attributes) {
  const options = { seed: "femo", size: SIZE, ...dicebearOptions(attributes) };
  const svg = createAvatar(COLLECTION[attributes.style], options).toString();
  const image = new Resvg(svg, { fitTo: { mode: "width", value: SIZE }, font: { loadSystemFonts: false } }).render();
  const rgba = image.pixels;
  if (rgba.length !== PIXELS * 4)
    throw new Error(`${JSON.stringify(attributes)}: ${image.width}x${image.height} pixels`);
  const rgb = new Uint8Array(PIXELS * 3);
  for (let p = 0; p < PIXELS; p++) {
    if (rgba[4 * p + 3] !== 255) throw new Error(`${JSON.stringify(attributes)}: pixel ${p} is not opaque`);
    rgb.set(rgba.subarray(4 * p, 4 * p + 3), 3 * p);
  }
  return rgb;
}

/** Whether a row is there: a chunk is written as a whole, and no picture is all black. */
function isRendered(file, row) {
  const rgb = new Uint8Array(PIXELS * 3);
  readSync(file, rgb, 0, rgb.length, row * PIXELS * 3);
  return rgb.some((byte) => byte !== 0);
}

/** Renders every `stride`-th chunk of a split into its file, starting with chunk `first`, but for those that are there. */
async function renderShare({ path, split, count, first, stride }) {
  const file = openSync(path, "r+");
  for (let start = first * CHUNK; start < count; start += stride * CHUNK) {
    const end = Math.min(start + CHUNK, count);
    if (isRendered(file, end - 1)) continue;
    const rgb = new Uint8Array((end - start) * PIXELS * 3);
    for (let row = start; row < end; row++) {
      rgb.set(renderAvatar(drawAttributes(sourceOf(split, row))), (row - start) * PIXELS * 3);
    }
    writeSync(file, rgb, 0, rgb.length, start * PIXELS * 3);
    parentPort.postMessage(end - start);
    await setImmediate(); // lets Node free the renderer's memory
  }
  closeSync(file);
}

async function renderSplit(out, split, count, workers, resume) {
  const path = join(out, `${split}_images.bin`);
  const file = openSync(path, resume ? "a" : "w");
  ftruncateSync(file, count * PIXELS * 3);
  closeSync(file);
  let done = 0;
  await Promise.all(
    Array.from({ length: workers }, (_, first) => {
      const worker = new Worker(new URL(import.meta.url), {
        workerData: { path, split, count, first, stride: workers },
      });
      worker.on("message", (rendered) => {
        if (Math.floor((done + rendered) / 10000) > Math.floor(done / 10000))
          console.log(`${split}: ${done + rendered}`);
        done += rendered;
      });
      return new Promise((resolve, reject) => {
        worker.on("exit", resolve);
        worker.on("error", reject);
      });
    }),
  );
}

/** Writes attributes and captions of a split; returns the attribute rows as strings. */
async function describeSplit(out, split, count, captions) {
  const values = ATTRIBUTES.map(attributeValues);
  const bytes = new Uint8Array(count * ATTRIBUTES.length);
  const keys = [];
  const prompts = [];
  const file = createWriteStream(join(out, `${split}_captions.txt`));
  for (let row = 0; row < count; row++) {
    const random = sourceOf(split, row);
    const attributes = drawAttributes(random);
    ATTRIBUTES.forEach((name, i) => {
      bytes[row * ATTRIBUTES.length + i] = values[i].indexOf(attributes[name]);
    });
    keys.push(bytes.subarray(row * ATTRIBUTES.length, (row + 1) * ATTRIBUTES.length).join());
    prompts.push(caption(attributes, sourceOf(`${split}Prompts`, row), { complete: true }));
    const texts = Array.from({ length: captions }, () => caption(attributes, random));
    if (!file.write(`${JSON.stringify(texts)}\n`)) await new Promise((resolve) => file.once("drain", resolve));
  }
  await new Promise((resolve) => file.end(resolve));
  writeFileSync(join(out, `${split}_prompts.txt`), `${prompts.join("\n")}\n`);
  writeFileSync(join(out, `${split}_attributes.bin`), bytes);
  return keys;
}

async function main() {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      train: { type: "string", default: "200000" },
      heldout: { type: "string", default: "10000" },
      captions: { type: "string", default: "6" },
      workers: { type: "string", default: String(availableParallelism()) },
      resume: { type: "boolean", default: false },
    },
  });
  if (!values.out) throw new Error("--out DIR is needed");
  const counts = { heldout: Number(values.heldout), train: Number(values.train) };
  mkdirSync(values.out, { recursive: true });

  const keys = {};
  for (const split of Object.keys(counts)) {
    keys[split] = await describeSplit(values.out, split, counts[split], Number(values.captions));
  }
  const trained = new Set(keys.train);
  const index = {
    size: SIZE,
    channels: 3,
    attributes: Object.fromEntries(ATTRIBUTES.map((name) => [name, attributeValues(name)])),
    captions: Number(values.captions),
    counts,
    distinctTrain: trained.size,
    heldoutAlsoInTrain: keys.heldout.filter((key) => trained.has(key)).length,
  };
  writeFileSync(join(values.out, "index.json"), `${JSON.stringify(index, null, 2)}\n`);
  for (const split of Object.keys(counts)) {
    await renderSplit(values.out, split, counts[split], Number(values.workers), values.resume);
  }
  console.log("done");
}

if (isMainThread) {
  await main();
} else {
  await renderShare(workerData);
}
