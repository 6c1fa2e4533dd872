import { describe, expect, test } from "vitest";
import { countFlops } from "../../../src/graph/index.js";
import { type CacheOptions, type Method, type ModelFacts, plannedKinds, X0 } from "../../../src/methods/index.js";
import { flux } from "../../../src/models/flux.js";
import { fluxDev } from "../../../src/models/flux-config.js";
import { traceCut } from "../../../src/tracing/index.js";
import { tinyRuns } from "../../denoising/tiny-runs.js";
import { relativeError } from "../../runtime/helpers.js";
import { femoError } from "../../weights/helpers.js";
import { draw, methodFor } from "./helpers.js";

type Fields = Omit<Extract<Exclude<CacheOptions, string>, { method: "deltaDit" }>, "method">;
const delta = (fields: Fields, model?: ModelFacts): Method => methodFor({ method: "deltaDit", ...fields }, model);
const kinds = (fields: Fields, numSteps: number): string => (plannedKinds(delta(fields), numSteps) ?? []).join(" ");
const state = { history: 1, averages: 0 };

test("full are the first step and those that lie a multiple of the interval before the last", () => {
  expect(kinds({ interval: 4, boundary: 1 }, 10)).toBe("full full rear rear rear full rear rear rear full");
  expect(kinds({ interval: 4, boundary: 0.5 }, 12)).toBe(
    "full rear rear full rear rear front full front front front full",
  );
  expect(kinds({ interval: 3 }, 6)).toBe("full front full front front full");
  expect(kinds({ interval: 1 }, 3)).toBe("full full full");
});

test("as the public code runs it, every second cached step in a row uses all modules again", () => {
  expect(kinds({ interval: 4, boundary: 1, compat: true }, 9)).toBe(
    "full rear modules rear full rear modules rear full",
  );
});

test("front and rear are halves, unless only one of them is cached", async () => {
  const chain = "transformer_blocks";
  expect(delta({ boundary: 0.5 }).cuts).toEqual({
    full: {
      capture: {
        any: [
          { chain, blocks: [4, 8] },
          { chain, blocks: [0, 4] },
        ],
      },
    },
    rear: { forecast: { chain, blocks: [4, 8] } },
    front: { forecast: { chain, blocks: [0, 4] } },
  });
  expect(Object.keys(delta({ blocks: 6 }).cuts)).toEqual(["full", "front"]);
  expect(await femoError("E_OPTION", () => delta({ blocks: 6, boundary: 0.5 }))).toContain("expected at most 4");
  expect(await femoError("E_OPTION", () => delta({ blocks: 9 }))).toContain("expected at most 8");
});

test("on FLUX all single blocks are cached, and with the published branch it costs what the paper prints", () => {
  const model = flux(fluxDev);
  const sizes = { batch: 1, rows: 64, columns: 64, text: 512, features: 1 };
  const { cuts } = delta({ compat: true }, model);
  const flopsOf = (kind: string): number => {
    const cut = cuts[kind];
    if (cut === undefined || cut === X0) throw new Error(kind);
    return countFlops(traceCut(model, cut.forecast ? { ...cut, state } : cut).graph, sizes);
  };
  expect(cuts.rear).toEqual({ forecast: { chain: "single_transformer_blocks", blocks: [0, 38] } });
  const cost = new Map(["full", "rear", "modules"].map((kind) => [kind, flopsOf(kind)]));
  const steps = plannedKinds(delta({ interval: 3, compat: true }, model), 50) ?? [];
  const full = cost.get("full") as number;
  const inFullSteps = steps.reduce((sum, kind) => sum + (cost.get(kind) as number) / full, 0);
  expect(Math.abs(inFullSteps / (1686.76 / 74.39) - 1)).toBeLessThan(0.01);
});

describe("on a model", () => {
  const { backbone, run } = tinyRuns();

  test("cached steps of both kinds run on what full ones have left; with every step full nothing changes", async () => {
    const drawn = (cache: CacheOptions) => draw(run, methodFor(cache, backbone().model), [0, 1], 8);
    const [plain, every, both] = [
      await drawn("none"),
      await drawn({ method: "deltaDit", interval: 1, boundary: 0.5 }),
      await drawn({ method: "deltaDit", interval: 3, boundary: 0.5 }),
    ];
    expect(every.latents).toEqual(plain.latents);
    expect(new Set(both.steps.map(({ kind }) => kind))).toEqual(new Set(["full", "rear", "front"]));
    const flops = ({ steps }: typeof both) => steps.reduce((sum, step) => sum + step.flops, 0);
    expect(flops(both)).toBeLessThan(0.85 * flops(plain));
    for (const i of [0, 1]) {
      const error = relativeError(both.latents[i] as Float32Array, plain.latents[i] as Float32Array);
      expect(error).toBeGreaterThan(1e-4);
      expect(error).toBeLessThan(0.5);
    }
  });

  test("with every block in the rear it is FORA on the change of all blocks", async () => {
    const rear = methodFor({ method: "deltaDit", interval: 4, blocks: 2, boundary: 1 }, backbone().model);
    const fora = methodFor({ method: "fora", granularity: "stack", fullSteps: [0, 3, 7] }, backbone().model);
    const [found, wanted] = [await draw(run, rear, [0], 8), await draw(run, fora, [0], 8)];
    expect(relativeError(found.latents[0] as Float32Array, wanted.latents[0] as Float32Array)).toBeLessThan(1e-5);
  });
});
