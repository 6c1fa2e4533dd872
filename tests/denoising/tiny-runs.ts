import { beforeAll } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { Conditioning } from "../../src/denoising/conditioning.js";
import { denoise } from "../../src/denoising/denoise.js";
import { guidanceRows } from "../../src/denoising/guidance.js";
import type { Denoised, DenoisingStep, ImageStart } from "../../src/denoising/records.js";
import type { Forecaster } from "../../src/methods/forecasts/index.js";
import type { Method } from "../../src/methods/index.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { createSampler, ditScheduler, type SchedulerConfig, TorchGenerator } from "../../src/samplers/index.js";
import { goldenFolder, openModel } from "../models/tiny.js";
import { engineForTests, integers, noise } from "../runtime/helpers.js";

/** Runs of the loop on a tiny model with two blocks, DDIM and guidance at a scale of 2. */
export function tinyRuns() {
  const engine = engineForTests();
  let opened: Backbone | undefined;
  const backbone = (): Backbone => opened as Backbone;
  beforeAll(async () => {
    const { model, checkpoint } = await openModel(engine, `${goldenFolder}/tiny-a`);
    opened = new Backbone(model, checkpoint, new Sessions(engine, Number.POSITIVE_INFINITY));
  });

  /** Conditions 0 and 1 are classes, 2 is none. */
  const image = (index: number): ImageStart => {
    const generator = new TorchGenerator(index);
    return {
      index,
      rows: guidanceRows(2, index % 2, 2),
      sizes: {},
      latent: noise(backbone().sampleDims({}), 40 + index).data as Float32Array,
      draw: () => generator.randn(backbone().sampleDims({})),
    };
  };

  let requests = 0;
  const start = async (numInferenceSteps: number, scheduler: SchedulerConfig = ditScheduler) => {
    const sampler = createSampler(scheduler, { numInferenceSteps });
    const prefix = `test-${++requests}`;
    const feeds = { class_label: integers([3], [0, 3, 7]) };
    const conditioning = await Conditioning.compute(backbone(), prefix, sampler.timesteps, { count: 3, feeds });
    return { backbone: backbone(), sampler, conditioning, prefix };
  };

  return {
    engine,
    backbone,
    image,
    start,
    async run(method: Method, images: readonly number[], numInferenceSteps = 8, scheduler?: SchedulerConfig) {
      const steps: DenoisingStep[] = [];
      const loop = denoise({
        ...(await start(numInferenceSteps, scheduler)),
        method,
        images: images.map(image),
        guidanceChannels: "all",
      });
      for (;;) {
        const { done, value } = await loop.next();
        if (done) return { steps, ...(value as Denoised) };
        steps.push(value as DenoisingStep);
      }
    },
  };
}

export type TinyRuns = ReturnType<typeof tinyRuns>;

/** Kinds by image and step; "f" forecast, "F" full. */
export const byPattern = (
  forecaster: Forecaster,
  patterns: readonly string[],
  cuts: Method["cuts"] = { full: { capture: { level: "module" } }, forecast: { forecast: { level: "module" } } },
): Method => ({
  cuts,
  forecaster,
  measure: true,
  firstDifference: 0,
  policy: {
    looks: [],
    start: (index) => patterns[index],
    decide: (memory, { step, due }) => ({
      memory,
      kind: due || (memory as string)[step] === "F" ? "full" : "forecast",
    }),
  },
});
