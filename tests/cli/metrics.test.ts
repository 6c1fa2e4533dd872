import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { zipSync } from "fflate";
import { beforeAll, describe, expect, test } from "vitest";
import { imagesAt } from "../../src/cli/image-folders.js";
import { digestOf } from "../../src/cli/row-file.js";
import { encodePng, type RgbImage } from "../../src/images/index.js";
import { pairTasks, psnr, ssim } from "../../src/metrics/index.js";
import { clipConfigFromJson } from "../../src/models/clip-vision.js";
import { lpips, lpipsChannels } from "../../src/models/lpips.js";
import { testImage } from "../metrics/hash-weights.js";
import { clipTensors, inceptionTensors } from "../metrics/hashed-networks.js";
import { fanIn, temporaryFolder, writeHashed } from "../metrics/weight-file.js";
import { femoError } from "../weights/helpers.js";
import { femo } from "./run.js";

const root = temporaryFolder();
const env = { FEMO_CACHE: join(root, "cache") };
const place = (name: string): string => join(root, name);

function writeImages(name: string, images: readonly RgbImage[], nameOf = (i: number) => `${i + 1}.png`): string {
  mkdirSync(place(name), { recursive: true });
  for (const [i, image] of images.entries()) writeFileSync(join(place(name), nameOf(i)), encodePng(image));
  return place(name);
}

const pictures = (from: number, count: number, side = 64): RgbImage[] =>
  Array.from({ length: count }, (_, i) => testImage(side, side, from + i));

const [a, b] = [pictures(1, 6), pictures(7, 6)];
let [folderA, folderB] = ["", ""];
beforeAll(() => {
  [folderA, folderB] = [writeImages("a", a), writeImages("b", b)];
});

const run = async (...args: string[]) => {
  const { code, stdout, stderr } = await femo(["metrics", ...args], { env });
  if (code !== 0) throw new Error(stderr);
  return stdout;
};
const json = async (...args: string[]) => JSON.parse(await run(...args, "--json"));
const failure = async (...args: string[]) => {
  const { code, stderr } = await femo(["metrics", ...args], { env });
  return `${code}: ${stderr}`;
};

describe("of pairs, without a network", () => {
  test("psnr and ssim: a value for each pair, mean and standard error", async () => {
    const found = await json("psnr", folderA, folderB);
    const wanted = a.map((image, i) => psnr(image, b[i] as RgbImage));
    expect(found).toMatchObject({ metric: "psnr", count: 6 });
    expect(found.perImage.map(({ value }: { value: number }) => value)).toEqual(wanted);
    const mean = wanted.reduce((sum, x) => sum + x, 0) / 6;
    expect(found.value).toBeCloseTo(mean, 10);
    const variance = wanted.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 5;
    expect(found.standardError).toBeCloseTo(Math.sqrt(variance / 6), 10);
    const uniform = await json("ssim", folderA, folderB, "--window", "uniform7");
    expect(uniform.metric).toBe("ssim:uniform7");
    expect(uniform.perImage[3].value).toBeCloseTo(ssim(a[3] as RgbImage, b[3] as RgbImage, "uniform7"), 12);
  });

  test("names are in the order of their numbers; equal images are counted, not averaged", async () => {
    const many = writeImages("many", pictures(1, 11));
    const { perImage, notes, value } = await json("psnr", many, many);
    expect(perImage.map(({ name }: { name: string }) => name).slice(8)).toEqual(["9.png", "10.png", "11.png"]);
    expect(value).toBe("Infinity");
    expect(notes.join()).toContain("11 pairs are equal");
  });

  test("images of a .npz of samples are those of a folder", async () => {
    const header = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 64, 64, 3), }".padEnd(117);
    const start = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0, ...Buffer.from(`${header}\n`)];
    const npy = Buffer.concat([Uint8Array.from(start), ...a.map(({ data }) => data)]);
    writeFileSync(place("samples.npz"), zipSync({ "arr_0.npy": npy }, { level: 0 }));
    for (const [i, source] of (await imagesAt(place("samples.npz"))).entries()) {
      expect((await source.read()).decode()).toEqual(a[i]);
    }
    writeFileSync(place("other.npz"), zipSync({ "arr_1.npy": npy }, { level: 0 }));
    expect(await femoError("E_OPTION", () => imagesAt(place("other.npz")))).toContain("found none");
  });

  test("what does not pair up, is no image or is not there", async () => {
    const pair = async (x: string, y: string) => pairTasks(await imagesAt(x), await imagesAt(y), digestOf);
    const unlike = await femoError("E_OPTION", () => pair(folderA, place("many")));
    expect(unlike).toMatch(/same names.*found 6 and 11; only one side has 7\.png/);
    expect(await femoError("E_OPTION", () => imagesAt(place("nowhere")))).toContain("nowhere: no such file");
    mkdirSync(place("empty"));
    expect(await femoError("E_OPTION", () => imagesAt(place("empty")))).toContain("has no PNG files");
    expect(await femoError("E_OPTION", () => imagesAt(join(folderA, "1.png")))).toContain("found a file");
    cpSync(folderA, place("damaged"), { recursive: true });
    writeFileSync(join(place("damaged"), "4.png"), readFileSync(join(folderA, "4.png")).subarray(0, 99));
    expect(await failure("psnr", place("damaged"), folderA)).toMatch(/^1: femo: 4\.png: PNG/);
  });
});

describe("of Inception's features", () => {
  const weights = place("inception.safetensors");
  const options = ["--weights", weights, "--any-weights", "--threads", "1"];
  beforeAll(() => writeHashed(weights, inceptionTensors()));
  const caches = (): string[] => readdirSync(join(env.FEMO_CACHE, "metrics"));

  test("fid equals pytorch-fid's, says what it is of, and computes nothing twice", async () => {
    const found = await json("fid", folderA, folderB, ...options);
    expect(found).toMatchObject({
      metric: "fid:pytorch",
      count: 6,
      details: { counts: { generated: 6, reference: 6 } },
    });
    expect(found.value).toBeCloseTo(1.984812, 4);
    expect(found.weights["pt_inception-2015-12-05-6726825d.pth"]).toMatch(/^[0-9a-f]{64}$/);
    expect(found.notes.join()).toContain("6 images make a covariance of rank 5 of 2048");
    const sizes = () => caches().map((name) => readFileSync(join(env.FEMO_CACHE, "metrics", name)).length);
    const before = sizes();
    const again = await json("fid", folderA, folderB, ...options);
    expect(again).toEqual(found);
    expect(sizes()).toEqual(before);
  });

  test("sfid, kid, precision and recall of the same images", async () => {
    const sfid = await json("fid", folderA, folderB, ...options, "--spatial");
    expect(sfid.metric).toBe("sfid:pytorch");
    expect(sfid.value).toBeCloseTo(51.49759, 2);
    const kid = await json("kid", folderA, folderB, ...options);
    expect(kid).toMatchObject({ metric: "kid:pytorch", details: { subsets: 1, subsetSize: 6, seed: 2020 } });
    expect(await run("precision-recall", folderA, folderA, ...options)).toMatch(
      /precision:pytorch {2}1 .*\nrecall:pytorch {2}1 /,
    );
  });

  test("against a file of statistics, kept once it is factored", async () => {
    const header = (text: string): Uint8Array => {
      const padded = `${text.padEnd(117)}\n`;
      return Uint8Array.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length, 0, ...Buffer.from(padded)]);
    };
    const npy = (shape: string, values: Float64Array): Uint8Array =>
      Buffer.concat([
        header(`{'descr': '<f8', 'fortran_order': False, 'shape': ${shape}, }`),
        Buffer.from(values.buffer),
      ]);
    const sigma = new Float64Array(2048 * 2048);
    for (let i = 0; i < 20; i++) sigma[i * 2049] = 0.01;
    const archive = zipSync(
      { "mu.npy": npy("(2048,)", new Float64Array(2048)), "sigma.npy": npy("(2048, 2048)", sigma) },
      { level: 1 },
    );
    writeFileSync(place("stats.npz"), archive);
    const found = await json("fid", folderA, place("stats.npz"), ...options);
    expect(found.details.rank[1]).toBe(20);
    expect(found.details.traces[1]).toBeCloseTo(0.2, 12);
    expect(await json("fid", folderA, place("stats.npz"), ...options)).toEqual(found);
    expect(await failure("fid", folderA, place("stats.npz"), ...options, "--spatial")).toContain("mu_s and sigma_s");
  });

  test("Ctrl-C leaves what was computed, and the next run goes on from there", async () => {
    const many = writeImages("more", pictures(50, 14, 32));
    const args = ["metrics", "fid", many, folderB, ...options, "--batch-size", "1"];
    const { code } = await femo(args, { env, interruptAt: `features of ${many}, 2 of 14` });
    expect(code).toBe(130);
    const lengths = caches().map((name) => readFileSync(join(env.FEMO_CACHE, "metrics", name)).length);
    const record = 32 + 4 * 2048 + 8;
    // The features of the other folders, and some of these.
    const kept = lengths.filter((length) => length % record === 0).map((length) => length / record);
    expect(Math.max(...kept)).toBeGreaterThanOrEqual(12 + 2);
    expect(Math.max(...kept)).toBeLessThan(12 + 14);
    expect((await json("fid", many, folderB, ...options)).count).toBe(14);
  });

  test("other weights than were published are refused unless that is asked for", async () => {
    expect(await failure("fid", folderA, folderB, "--weights", weights)).toMatch(
      /^1: .*with the SHA-256 6726825d0af5.*github\.com/s,
    );
  });
});

test("lpips over AlexNet", async () => {
  const { weights } = lpips(
    "alex",
    64,
    64,
    lpipsChannels.alex.map((width) => new Float32Array(width)),
  ).reachable();
  const path = place("alexnet.safetensors");
  writeHashed(
    path,
    weights.map(({ name, shape }) => ({
      name,
      shape: shape as number[],
      scale: shape.length === 1 ? 0.1 : fanIn(6, shape as number[]),
    })),
  );
  const [x, y] = [writeImages("x", pictures(1, 1)), writeImages("y", pictures(2, 1))];
  const found = await json("lpips", x, y, "--weights", path, "--any-weights");
  expect(found).toMatchObject({ metric: "lpips:alex", count: 1 });
  expect(found.value).toBeCloseTo(0.0710841, 6);
  expect(Object.keys(found.weights)).toEqual(["alexnet-owt-7be5be79.pth", "alex.pth"]);
});

describe("of prompts", () => {
  const clip = place("clip");
  beforeAll(() => {
    const config = {
      projection_dim: 32,
      text_config: {
        hidden_size: 48,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        eos_token_id: 2,
      },
      vision_config: {
        ...{ hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 },
        ...{ image_size: 32, patch_size: 8 },
      },
    };
    writeHashed(join(clip, "model.safetensors"), clipTensors(clipConfigFromJson(config)));
    writeFileSync(join(clip, "config.json"), JSON.stringify(config));
    cpSync(fileURLToPath(new URL("../goldens/tokenizers/clip", import.meta.url)), clip, { recursive: true });
    writeFileSync(place("prompts.txt"), Array.from({ length: 6 }, (_, i) => `a photo of ${i}`).join("\n"));
  });

  test("clip: a score for each image, and the mistake of some papers by its name", async () => {
    const found = await json("clip", folderA, "--prompts", place("prompts.txt"), "--weights", clip);
    expect(found).toMatchObject({ metric: "clip:L/14", count: 6 });
    expect(found.perImage).toHaveLength(6);
    expect(found.value).toBeCloseTo(
      found.perImage.reduce((sum: number, { value }: { value: number }) => sum + value, 0) / 6,
      10,
    );
    expect(found.weights["model.safetensors"]).toMatch(/^[0-9a-f]{64}$/);
    const twice = ["--model", "L/14-twice-rescaled"];
    const wrong = await json("clip", folderA, "--prompts", place("prompts.txt"), "--weights", clip, ...twice);
    expect(wrong.metric).toBe("clip:L/14-twice-rescaled");
    expect(wrong.notes.join()).toContain("no measure");
  });

  test("as many prompts as images", async () => {
    writeFileSync(place("few.txt"), "one\ntwo\n");
    expect(await failure("clip", folderA, "--prompts", place("few.txt"), "--weights", clip)).toMatch(
      /^2: .*found 2 prompts and 6 images/,
    );
    expect(await failure("image-reward", folderA, "--prompts", place("prompts.txt"), "--weights", clip)).toMatch(
      /^1: .*expected ImageReward\.pt in this folder.*THUDM\/ImageReward/s,
    );
  });
});
