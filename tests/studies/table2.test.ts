import { expect, test } from "vitest";
import { countFlops } from "../../src/graph/index.js";
import { unet } from "../../src/models/unet.js";
import { sdxlBase } from "../../src/models/unet-config.js";
import { speedReadingsText, table2Readings } from "../../src/studies/index.js";
import { traceCut } from "../../src/tracing/index.js";

/** Counted apart from this project, with hooks on diffusers' model: a step with all deeper than cut j kept, over a full one. */
const keptShares = {
  1024: [0.0145, 0.0378, 0.0661, 0.1289, 0.2141, 0.3062, 0.4372, 0.6586, 0.8821],
  512: [0.0154, 0.0403, 0.0704, 0.1274, 0.1985, 0.2771, 0.4138, 0.6444, 0.8771],
} as const;
const sizes = [1024, 512] as const;
const readings = Object.fromEntries(sizes.map((size) => [size, table2Readings(size)]));

test("a step of SDXL has the operations counted on diffusers' model", () => {
  const { graph } = traceCut(unet(sdxlBase), { hoisted: "inline" });
  const tera = sizes.map((size) => countFlops(graph, { batch: 1, height: size / 8, width: size / 8, text: 77 }) / 1e12);
  expect(tera[0]).toBeCloseTo(6.761, 1);
  expect(tera[1]).toBeCloseTo(1.589, 1);
});

test.each(sizes)("the shares of the levels at %i pixels are those counted on diffusers' model", (size) => {
  const share = (level: string) => readings[size]?.find(({ granularity }) => granularity === level)?.ratios.forecast;
  for (const [j, expected] of keptShares[size].entries()) expect(share(`deep.${j}`)).toBeCloseTo(expected, 3);
  expect(share("module")).toBeCloseTo(size === 1024 ? 0.251 : 0.267, 2);
  expect(share("transformer")).toBeCloseTo(size === 1024 ? 0.24 : 0.255, 2);
});

test("most levels fit Table 2 within three percent, so its speed-ups do not tell which it was", () => {
  for (const size of sizes) {
    const fitting = readings[size]?.filter(({ error }) => error < 0.03).map(({ granularity }) => granularity);
    expect(fitting).toHaveLength(11);
    expect(fitting).toContain("module");
    expect(fitting).toContain("output");
  }
});

test("no reading has DeepCache at the cuts that its package and its authors' code default to", () => {
  for (const { cacheBranchId } of Object.values(readings).flat()) expect(cacheBranchId).toBeGreaterThan(3);
});

test("what is outside the U-Net is the fitted share that is told", () => {
  for (const { rows, outside, ratios, error } of readings[1024] ?? []) {
    const left = ({ method, interval }: (typeof rows)[number]): number => {
      const full = interval === 2 ? 25 : 8;
      return (full + (50 - full) * (method === "DeepCache" ? ratios.deepCache : ratios.forecast)) / 50;
    };
    const squares = rows.map((row) => {
      expect(row.predicted).toBeCloseTo(1 / (outside + (1 - outside) * left(row)), 6);
      return (row.predicted / row.printed - 1) ** 2;
    });
    expect(error).toBeCloseTo(Math.sqrt(squares.reduce((a, b) => a + b) / 6), 9);
  }
});

test("as text, printed values stand over predicted ones", () => {
  const [title, heading, printed, first] = speedReadingsText(512, readings[512] ?? []).split("\n");
  expect(title).toContain("512x512");
  expect(heading).toContain("DeepCache N=7");
  expect(printed?.split(/\s+/).slice(1)).toEqual(["1.34", "1.50", "1.48", "1.71", "2.19", "2.16"]);
  expect(first).toMatch(/%$/);
});
