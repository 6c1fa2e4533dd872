import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { RgbImage } from "../../src/images/index.js";
import { Lpips } from "../../src/metrics/lpips.js";
import { type LpipsNet, lpips, lpipsChannels, lpipsLinear, lpipsNets } from "../../src/models/lpips.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { engineForTests } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { testImage } from "./hash-weights.js";
import { fanIn, hashedCheckpoint, temporaryFolder } from "./weight-file.js";

const engine = engineForTests();
const sessions = new Sessions(engine, 2 ** 32);
const folder = temporaryFolder();
const shipped = nodeFolder(fileURLToPath(new URL("../../models/lpips", import.meta.url)));

const noLinear = (net: LpipsNet) => lpipsChannels[net].map((width) => new Float32Array(width));

async function open(net: LpipsNet, linear: "shipped" | "hashed" = "shipped"): Promise<Lpips> {
  const { weights } = lpips(net, 64, 64, noLinear(net)).reachable();
  const trunk = await hashedCheckpoint(
    folder,
    `${net}.safetensors`,
    weights.map(({ name, shape }) => ({
      name,
      shape: shape as number[],
      scale: shape.length === 1 ? 0.1 : fanIn(6, shape as number[]),
    })),
  );
  const layers =
    linear === "shipped"
      ? await openCheckpoint(shipped, `${net}.pth`)
      : await hashedCheckpoint(
          folder,
          `${net}-linear.safetensors`,
          lpipsChannels[net].map((width, tap) => ({
            name: lpipsLinear(tap),
            shape: [1, width, 1, 1],
            scale: 0.05,
            offset: 0.05,
          })),
        );
  return Lpips.open(net, trunk, layers, sessions);
}

/** A picture, the same with its middle turned negative, and another. */
function pictures(n: number): [RgbImage, RgbImage, RgbImage] {
  const first = testImage(n, n, 1);
  const [quarter, half, most] = [n / 4, n / 2, (3 * n) / 4].map(Math.floor) as [number, number, number];
  const data = first.data.map((value, i) => {
    const [x, y] = [Math.floor(i / 3) % n, Math.floor(i / 3 / n)];
    return y >= quarter && y < half && x >= quarter && x < most ? 255 - value : value;
  });
  return [first, { ...first, data }, testImage(n, n, 2)];
}

describe("equals the package lpips with the same weights", () => {
  test.each<[LpipsNet, number, [number, number]]>([
    ["alex", 64, [0.0532408, 0.0710841]],
    ["alex", 71, [0.0474304, 0.0721831]],
    ["squeeze", 64, [0.0338879, 0.0805058]],
    ["squeeze", 71, [0.0340859, 0.0866732]],
    ["vgg", 64, [0.0387979, 0.124039]],
  ])("%s of %i pixels, its own linear layers", async (net, n, wanted) => {
    const model = await open(net);
    const [x, y, z] = pictures(n);
    expect((await model.distance(x, y)).value).toBeCloseTo(wanted[0], 6);
    expect((await model.distance(x, z)).value).toBeCloseTo(wanted[1], 6);
    expect((await model.distance(x, x)).value).toBe(0);
  });

  test.each<[LpipsNet, [number, number]]>([
    ["alex", [0.0411601, 0.0722104]],
    ["squeeze", [0.0218228, 0.0577376]],
    ["vgg", [0.0189313, 0.0615149]],
  ])("%s, hashed linear layers", async (net, wanted) => {
    const model = await open(net, "hashed");
    const [x, y, z] = pictures(64);
    expect((await model.distance(x, y)).value).toBeCloseTo(wanted[0], 6);
    expect((await model.distance(x, z)).value).toBeCloseTo(wanted[1], 6);
  });

  test("layer by layer", async () => {
    const [x, y] = pictures(64);
    const { taps } = await (await open("alex")).distance(x, y);
    for (const [i, value] of [0.014372, 0.014422, 0.0084389, 0.009676, 0.0063319].entries()) {
      expect(taps[i]).toBeCloseTo(value, 6);
    }
  });

  test.each<[LpipsNet, number]>([
    ["alex", 0.0532295],
    ["squeeze", 0.0339152],
    ["vgg", 0.0387979],
  ])("%s, pixel by pixel", async (net, mean) => {
    const [x, y] = pictures(64);
    const map = await (await open(net)).map(x, y);
    expect(map).toHaveLength(64 * 64);
    expect(map.reduce((a, b) => a + b, 0) / map.length).toBeCloseTo(mean, 6);
  });
});

test("the shipped layers are the package's", async () => {
  const sums: number[] = [];
  const layers = await openCheckpoint(shipped, "alex.pth");
  for (const tap of lpipsChannels.alex.keys()) {
    sums.push((await layers.readTensor(lpipsLinear(tap))).reduce((a, b) => a + b, 0));
  }
  for (const [i, sum] of [2.349532, 16.143027, 39.268439, 27.197178, 20.317177].entries()) {
    expect(sums[i]).toBeCloseTo(sum, 4);
  }
  const readme = readFileSync(fileURLToPath(new URL("../../models/lpips/README.md", import.meta.url)), "utf8");
  for (const net of lpipsNets) expect(readme).toContain(`${net}.pth`);
});

test("one colour is like itself, and not NaN", async () => {
  const black = { width: 64, height: 64, data: new Uint8Array(3 * 64 * 64) };
  const model = await open("alex");
  expect((await model.distance(black, black)).value).toBe(0);
  expect((await model.distance(black, testImage(64, 64, 1))).value).toBeGreaterThan(0);
});

test("images of different sizes, and too small ones, are refused", async () => {
  const model = await open("squeeze");
  const message = await femoError("E_OPTION", () => model.distance(testImage(64, 64, 1), testImage(64, 48, 1)));
  expect(message).toContain("64x64 and 64x48");
  expect(await femoError("E_OPTION", () => model.distance(testImage(8, 8, 1), testImage(8, 8, 2)))).toContain("17");
  for (const net of lpipsNets) {
    const least = { alex: 31, vgg: 16, squeeze: 17 }[net];
    expect(() => lpips(net, least, least, noLinear(net))).not.toThrow();
  }
});

test("another network's weights are refused", async () => {
  const { weights } = lpips("alex", 64, 64, noLinear("alex")).reachable();
  const trunk = await hashedCheckpoint(
    folder,
    "wrong.safetensors",
    weights.slice(1).map(({ name, shape }) => ({ name, shape: shape as number[], scale: 0.1 })),
  );
  const linear = await openCheckpoint(shipped, "alex.pth");
  expect(await femoError("E_WEIGHT", () => Lpips.open("alex", trunk, linear, sessions))).toContain("features.0.weight");
  expect(await femoError("E_WEIGHT", () => Lpips.open("vgg", trunk, linear, sessions))).toContain(
    "lin1.model.1.weight",
  );
});
