import type { DiffusionPipeline, GenerateOptions, GenerationReport, RgbImage, StepProgress } from "femo";
import type { Output } from "./algebra.js";
import { cacheOf, type Settings, walkedSteps } from "./settings.js";

/** What came of a request. */
export interface Run {
  readonly image: RgbImage;
  readonly report: GenerationReport;
  /** What the network said at each step, as far as the sampler lets that be seen. */
  readonly outputs: readonly Output[];
  /** Where each step led. */
  readonly states: readonly Output[];
  /** How far off a forecast would have been, at full steps that measured it. */
  readonly measured: ReadonlyMap<number, number>;
}

export interface Watcher {
  step(progress: StepProgress): void;
  /** A picture of what there is so far. Without it none are made. */
  preview?(image: RgbImage): void;
  phase(words: string): void;
}

/** Of the time, what pictures on the way may take: to develop one takes longer than a step. */
const PREVIEW_SHARE = 0.35;

/** The request that settings mean to a model. */
export function requestOf(pipeline: DiffusionPipeline, settings: Settings): GenerateOptions {
  const { prompt, seed, guidance } = settings;
  const what =
    pipeline.subjectOption === "prompt"
      ? { prompt, trueCfgScale: guidance }
      : { classLabels: [/^\d+$/.test(prompt.trim()) ? Number(prompt) : prompt.trim()], guidanceScale: guidance };
  return { ...what, seed, numInferenceSteps: walkedSteps(settings) };
}

/**
 * Draws a picture and watches it come.
 * @throws the signal's reason; FemoError
 */
export async function draw(
  pipeline: DiffusionPipeline,
  settings: Settings,
  signal: AbortSignal,
  watcher: Watcher | undefined,
): Promise<Run> {
  const outputs: Output[] = [];
  const states: Output[] = [];
  const measured = new Map<number, number>();
  const isFlow = "predictionType" in pipeline.scheduler && pipeline.scheduler.predictionType === "flow_prediction";
  const started = performance.now();
  let previewMs = 0;
  let last: { readonly step: number; readonly full: boolean; readonly sigma: number } | undefined;
  /** Of a flow a step is x' = x + (s' - s) v: what the network said follows from where two steps in a row have led. */
  const said = (sigma: number): Float32Array | undefined => {
    const [from, to] = [states.at(-2)?.data, states.at(-1)?.data];
    if (!isFlow || !last || !from || !to) return undefined;
    const scale = 1 / (sigma - last.sigma);
    const data = to.map((x, i) => (x - (from[i] as number)) * scale);
    outputs.push({ step: last.step, full: last.full, data });
    return data;
  };
  const onStep = async (progress: StepProgress): Promise<void> => {
    const { step, timestep, latents, full, forecastError } = progress;
    watcher?.step(progress);
    if (forecastError) measured.set(step, forecastError.relativeError);
    const sigma = timestep / 1000;
    const v = said(sigma);
    const before = states.at(-1)?.data;
    states.push({ step, full, data: latents.slice() });
    last = { step, full, sigma };
    const begun = performance.now();
    if (!watcher?.preview || (isFlow && !v) || previewMs > PREVIEW_SHARE * (begun - started)) return;
    // Where it leads: the picture as it is thought to be by now.
    const seen = v && before ? before.map((x, i) => x - sigma * (v[i] as number)) : latents;
    const [image] = await pipeline.decode(seen, { signal });
    if (image) watcher.preview(image);
    previewMs += performance.now() - begun;
  };
  const words = {
    encoding: "Reading the prompt…",
    conditioning: "Setting up…",
    denoising: "Drawing…",
    decoding: "Developing…",
  };
  const { images, report } = await pipeline.generate({
    ...requestOf(pipeline, settings),
    cache: cacheOf(settings),
    signal,
    onStep,
    onPhase: (phase) => watcher?.phase(words[phase]),
  });
  said(0);
  return { image: images[0] as RgbImage, report, outputs, states, measured };
}
