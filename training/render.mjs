/**
 * Renders the training and held-out images: nine DiceBear avatar styles at 64x64 RGB.
 *
 *   node render.mjs --out DIR [--train 10000] [--heldout 1000] [--workers 2]
 *
 * --train and --heldout count images per class. Writes, for each split,
 *   <split>_images.bin   uint8 [N, 64, 64, 3], RGB, class after class
 *   <split>_labels.bin   uint8 [N]
 * and index.json (classes, counts, seed ranges, duplicate statistics).
 *
 * An avatar is a pure function of its seed, so the data set is reproducible bit for bit; the splits
 * use disjoint seed ranges. Styles with few parts can still draw the same picture from two seeds:
 * index.json says how often that happened.
 */
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import * as collection from "@dicebear/collection";
import { createAvatar } from "@dicebear/core";
import { Resvg } from "@resvg/resvg-js";

const SIZE = 64;
const PIXELS = SIZE * SIZE;
const IMAGE_BYTES = PIXELS * 3;
const BACKGROUNDS = ["b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf"];
const FIRST_SEED = { train: 0, heldout: 1_000_000 };

/** Class id = position in this list. */
const STYLES = [
  ["pixel-art", collection.pixelArt],
  ["lorelei", collection.lorelei],
  ["open-peeps", collection.openPeeps],
  ["notionists", collection.notionists],
  ["fun-emoji", collection.funEmoji],
  ["adventurer", collection.adventurer],
  ["big-smile", collection.bigSmile],
  ["toon-head", collection.toonHead],
  ["micah", collection.micah],
];

/** Draws one avatar into `rgb` at `offset`. */
function renderAvatar(style, seed, rgb, offset) {
  const svg = createAvatar(style, { seed, size: SIZE, backgroundColor: BACKGROUNDS }).toString();
  const image = new Resvg(svg, {
    fitTo: { mode: "width", value: SIZE },
    font: { loadSystemFonts: false },
  }).render();
  const rgba = image.pixels;
  if (rgba.length !== PIXELS * 4) throw new Error(`${seed}: ${image.width}x${image.height} pixels`);
  for (let p = 0; p < PIXELS; p++) {
    if (rgba[4 * p + 3] !== 255) throw new Error(`${seed}: pixel ${p} is not opaque`);
    rgb[offset + 3 * p] = rgba[4 * p];
    rgb[offset + 3 * p + 1] = rgba[4 * p + 1];
    rgb[offset + 3 * p + 2] = rgba[4 * p + 2];
  }
}

/** Renders every `stride`-th image of a split, starting at `first`. */
function renderShare({ buffer, perClass, firstSeed, first, stride }) {
  const rgb = new Uint8Array(buffer);
  const total = perClass * STYLES.length;
  for (let i = first; i < total; i += stride) {
    const [name, style] = STYLES[Math.floor(i / perClass)];
    renderAvatar(style, `${name}-${firstSeed + (i % perClass)}`, rgb, i * IMAGE_BYTES);
  }
}

async function renderSplit(split, perClass, workers) {
  const buffer = new SharedArrayBuffer(perClass * STYLES.length * IMAGE_BYTES);
  await Promise.all(
    Array.from({ length: workers }, (_, first) => {
      const share = { buffer, perClass, firstSeed: FIRST_SEED[split], first, stride: workers };
      const worker = new Worker(new URL(import.meta.url), { workerData: share });
      return new Promise((resolve, reject) => {
        worker.on("message", resolve);
        worker.on("error", reject);
      });
    }),
  );
  return new Uint8Array(buffer);
}

/** Node writes at most 2 GiB at once. */
function writeLarge(path, bytes) {
  const file = openSync(path, "w");
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes.subarray(at, at + 2 ** 30));
  closeSync(file);
}

const hashImages = (rgb) =>
  Array.from({ length: rgb.length / IMAGE_BYTES }, (_, i) =>
    createHash("md5")
      .update(rgb.subarray(i * IMAGE_BYTES, (i + 1) * IMAGE_BYTES))
      .digest("base64"),
  );

/** Per class: share of distinct training images, and of held-out images that also occur in training. */
function duplicateStatistics(train, heldout, perClass) {
  const trainHashes = hashImages(train);
  const heldoutHashes = hashImages(heldout);
  const seen = new Set(trainHashes);
  const rate = (hits, total) => Number((hits / total).toFixed(5));
  const classes = STYLES.map(([name], c) => {
    const own = trainHashes.slice(c * perClass.train, (c + 1) * perClass.train);
    const other = heldoutHashes.slice(c * perClass.heldout, (c + 1) * perClass.heldout);
    return {
      name,
      distinctTrain: rate(new Set(own).size, own.length),
      heldoutAlsoInTrain: rate(other.filter((h) => seen.has(h)).length, other.length),
    };
  });
  const shared = heldoutHashes.filter((h) => seen.has(h)).length;
  return { heldoutAlsoInTrain: rate(shared, heldoutHashes.length), classes };
}

async function main() {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      train: { type: "string", default: "10000" },
      heldout: { type: "string", default: "1000" },
      workers: { type: "string", default: String(availableParallelism()) },
    },
  });
  if (!values.out) throw new Error("--out DIR is needed");
  const perClass = { train: Number(values.train), heldout: Number(values.heldout) };
  mkdirSync(values.out, { recursive: true });

  const images = {};
  for (const split of ["train", "heldout"]) {
    images[split] = await renderSplit(split, perClass[split], Number(values.workers));
    const labels = Uint8Array.from({ length: perClass[split] * STYLES.length }, (_, i) =>
      Math.floor(i / perClass[split]),
    );
    writeLarge(join(values.out, `${split}_images.bin`), images[split]);
    writeFileSync(join(values.out, `${split}_labels.bin`), labels);
    console.log(`${split}: ${labels.length} images`);
  }

  const index = {
    size: SIZE,
    channels: 3,
    classes: STYLES.map(([name]) => name),
    backgrounds: BACKGROUNDS,
    splits: Object.fromEntries(
      Object.entries(perClass).map(([split, count]) => [split, { perClass: count, firstSeed: FIRST_SEED[split] }]),
    ),
    duplicates: duplicateStatistics(images.train, images.heldout, perClass),
  };
  writeFileSync(join(values.out, "index.json"), `${JSON.stringify(index, null, 2)}\n`);
  console.log(JSON.stringify(index.duplicates, null, 2));
}

if (isMainThread) {
  await main();
} else {
  renderShare(workerData);
  parentPort.postMessage("done");
}
