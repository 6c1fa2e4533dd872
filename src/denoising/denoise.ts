import { FemoError } from "../errors.js";
import { type Bindings, bindShape } from "../graph/index.js";
import type { Look, Method, Outcome } from "../methods/index.js";
import type { Feed, HostTensor } from "../runtime/engine.js";
import type { Sampler } from "../samplers/index.js";
import { BATCH, type Cut, canonical, computesAll, graphNames, type Place } from "../tracing/index.js";
import type { Backbone } from "./backbone.js";
import { type MeasuredForecast, measuredForecast } from "./coefficients.js";
import { Cohort, type ImageRun } from "./cohort.js";
import type { Conditioning } from "./conditioning.js";
import { checkCuts, graphOf } from "./feature-state.js";
import { cutFlops } from "./flops.js";
import { type GuidanceRow, guide } from "./guidance.js";

/** One run of the network for some images at one step. */
export interface StepRecord {
  /** 0 .. steps - 1, in sampling order. */
  readonly step: number;
  /** Fed to the model. */
  readonly timestep: number;
  /** Which of the method's kinds of step it was, such as "full" or "forecast". */
  readonly kind: string;
  /** Whether the whole network was computed. */
  readonly full: boolean;
  /** Which images, by their index in the request. */
  readonly images: readonly number[];
  /** Time in the runtime, milliseconds. */
  readonly durationMs: number;
  /** Floating-point operations, two for each multiply-add. */
  readonly flops: number;
  /** At full steps after the first, if measured: how far the forecast of this step would have been off. */
  readonly forecastError?: MeasuredForecast;
  /** Momentum coefficient over features and samples, for methods that have one. */
  readonly beta?: { readonly mean: number; readonly min: number; readonly max: number };
  /** The policy threw the result away and had the step run again. */
  readonly rejected?: true;
}

/** A record, and where its images stand after the step. */
export interface DenoisingStep extends StepRecord {
  /** The noisy images after the step, [images, ...sample] row-major; not to be changed. */
  readonly latents: Float32Array;
}

/** An image to be drawn. */
export interface ImageStart {
  readonly index: number;
  readonly rows: readonly GuidanceRow[];
  readonly sizes: Bindings;
  /** The noise that it starts from. */
  readonly latent: Float32Array;
}

export interface Denoising {
  readonly backbone: Backbone;
  readonly sampler: Sampler;
  readonly method: Method;
  readonly conditioning: Conditioning;
  readonly images: readonly ImageStart[];
  /** How many channels are guided; "all" for every one. */
  readonly guidanceChannels: "all" | number;
  /** Of the names under which the engine holds what the images need. */
  readonly prefix: string;
  readonly signal?: AbortSignal | undefined;
}

/** Where a denoising ended. */
export interface Denoised {
  /** The finished latent of every image, in the order in which they were given. */
  readonly latents: readonly Float32Array[];
  /** The most bytes that the features of the images took before a step. */
  readonly stateBytes: number;
}

/**
 * The loop, for one batch of images: before each step what the policy looks at is run, then every image's kind of step
 * is decided, and images that decided alike run together; the result is guided, judged, and moves the sampler. A step
 * that is judged bad runs once more. Whoever iterates owns progress and may stop at any step.
 * @throws FemoError E_RUNTIME at the first value that is not finite, E_GRAPH if the method does not fit together or the
 *   model; the signal's reason if it was aborted
 */
export async function* denoise(run: Denoising): AsyncGenerator<DenoisingStep, Denoised> {
  const { method, sampler, backbone } = run;
  checkCuts(backbone, method);
  const images: ImageRun[] = run.images.map(({ index, rows, sizes, latent }) => ({
    index,
    rows,
    sizes,
    state: { latent },
    memory: method.policy.start(index),
    looked: { values: [], changes: [] },
    seen: undefined,
  }));
  const loop = new Loop(run);
  const alive = new Set<Cohort>();
  let cohorts: Cohort[] = [];
  try {
    for (const [i, group] of bySize(images).entries()) {
      cohorts.push(await Cohort.start(backbone, method, `${run.prefix}:${i}`, group, alive));
    }
    let stateBytes = 0;
    for (let step = 0; step < sampler.timesteps.length; step++) {
      stateBytes = Math.max(
        stateBytes,
        cohorts.reduce((sum, { bytes }) => sum + bytes, 0),
      );
      const after: Cohort[] = [];
      for (const cohort of cohorts) {
        run.signal?.throwIfAborted();
        const decided = await loop.decide(cohort, step);
        for (const { cohort: part, value: kind } of decided.parts) {
          const share = part.images.length / cohort.images.length;
          const looked = { durationMs: share * decided.durationMs, flops: share * decided.flops };
          after.push(...(yield* loop.step(part, kind, step, looked)));
        }
      }
      cohorts = after;
    }
    run.signal?.throwIfAborted();
    return { latents: images.map(({ state }) => state.latent), stateBytes };
  } finally {
    // An engine that is closed holds nothing.
    await Promise.all([...alive].map((cohort) => cohort.free())).catch(() => {});
  }
}

/** What was run before a step to decide about it. */
interface Looked {
  readonly durationMs: number;
  readonly flops: number;
}

class Loop {
  readonly #run: Denoising;
  readonly #channels: number;

  constructor(run: Denoising) {
    this.#run = run;
    this.#channels = Number(run.backbone.sample.shape[0]);
  }

  /** Looks, and asks the policy what each image's step is to be. */
  async decide(cohort: Cohort, step: number) {
    const { policy } = this.#run.method;
    const looks: (Looked & { readonly rows: readonly Float32Array[] })[] = [];
    for (const look of policy.looks) looks.push(await this.#look(look, cohort, step));
    const kinds = cohort.images.map((image) => {
      const own = cohort.rowsOf([image]);
      const values = looks.map(({ rows }) => concat(own.map((row) => rows[row] as Float32Array)));
      const seen = policy.looks.map(({ against, measure }, i) => {
        const then = image.seen?.[against === "last step" ? "lastStep" : "lastFull"][i];
        return then && relativeChange(values[i] as Float32Array, then, measure);
      });
      const { memory, kind } = policy.decide(image.memory, this.#at(step), seen);
      image.memory = memory;
      image.looked = { values, changes: seen };
      return kind;
    });
    const looked: Looked = {
      durationMs: looks.reduce((sum, { durationMs }) => sum + durationMs, 0),
      flops: looks.reduce((sum, { flops }) => sum + flops, 0),
    };
    return { ...looked, parts: await cohort.split(kinds) };
  }

  /** Runs a step of one kind; the cohorts that come out of it. */
  async *step(
    cohort: Cohort,
    kind: string,
    step: number,
    looked: Looked,
    again = false,
  ): AsyncGenerator<DenoisingStep, Cohort[]> {
    const { method, sampler, backbone } = this.#run;
    const cut = this.#cutOf(kind);
    const full = computesAll(cut);
    const position = sampler.position(step);
    const features = cut.capture && method.forecaster ? cohort.features(cut.capture) : undefined;
    const result = await backbone.run(this.#graph(cut), {
      feeds: this.#feeds(cut, cohort, step),
      fetch: [graphNames.output],
      hold: features?.capture() ?? {},
    });
    const learned = await features?.learn({ position, differences: step > method.firstDifference });
    const squares = learned?.squares;
    const beta = features?.beta();
    const output = result.outputs[graphNames.output] as HostTensor;
    const outputs = rowsOf(output, cohort.rows.length);
    const record = {
      step,
      timestep: sampler.timesteps[step] as number,
      kind,
      full,
      images: cohort.images.map(({ index }) => index),
      durationMs: looked.durationMs + result.durationMs + (learned?.durationMs ?? 0),
      flops: looked.flops + this.#flops(cut, cohort) + (features?.kernelFlops ?? 0),
      ...(squares && { forecastError: measuredForecast(squares, [...cohort.rows.keys()]) }),
      ...(beta && { beta }),
    };

    const redo = cohort.images.map((image) => {
      const { judge } = method.policy;
      if (!judge) return undefined;
      const outcome: Outcome = {
        kind,
        seen: image.looked.changes,
        forecastError: squares && measuredForecast(squares, cohort.rowsOf([image])).relativeError,
        finite: cohort.rowsOf([image]).every((row) => allFinite(outputs[row] as Float32Array)),
      };
      const verdict = judge(image.memory, this.#at(step), outcome);
      image.memory = verdict.memory;
      if (again || verdict.redo === undefined) return undefined;
      if (!cut.capture) return verdict.redo;
      throw new FemoError("E_GRAPH", `a step of the kind "${kind}" cannot run again: its features have been taken in`);
    });
    const after: Cohort[] = [];
    for (const { cohort: part, value: other } of await cohort.split(redo)) {
      const images = part.images.map(({ index }) => index);
      const share = images.length / record.images.length;
      const own = { ...record, images, durationMs: share * record.durationMs, flops: share * record.flops };
      if (other !== undefined) {
        yield { ...own, rejected: true, latents: concat(part.images.map(({ state }) => state.latent)) };
        after.push(...(yield* this.step(part, other, step, { durationMs: 0, flops: 0 }, true)));
        continue;
      }
      for (const image of part.images) {
        this.#advance(image, cohort, outputs, step);
        const { values } = image.looked;
        image.seen = { lastStep: values, lastFull: full || !image.seen ? values : image.seen.lastFull };
      }
      yield { ...own, latents: concat(part.images.map(({ state }) => state.latent)) };
      after.push(part);
    }
    return after;
  }

  /** Guides what the network gave for an image, and moves its sampler. */
  #advance(image: ImageRun, cohort: Cohort, outputs: readonly Float32Array[], step: number): void {
    const { sampler, guidanceChannels } = this.#run;
    const own = cohort.rowsOf([image]).map((row) => outputs[row] as Float32Array);
    const size = image.state.latent.length;
    const guided = guidanceChannels === "all" ? size : (guidanceChannels * size) / this.#channels;
    if (!own.every(allFinite)) throw notFinite("the network's output is", image.index, step);
    image.state = sampler.step(step, image.state, guide(image.rows, own, size, guided));
    if (!allFinite(image.state.latent)) throw notFinite("latents are", image.index, step);
  }

  async #look({ cut, of }: Look, cohort: Cohort, step: number) {
    const { backbone } = this.#run;
    const name = "mark" in of ? graphNames.mark(of.mark) : graphNames.stream(cut.to as Place, of.stream);
    const { end } = backbone.cut(cut);
    const { outputs, durationMs } = await backbone.run(cut, {
      feeds: this.#feeds(cut, cohort, step),
      fetch: [name],
      hold: Object.fromEntries(end.map((stream) => [stream, cohort.stream(stream)])),
    });
    const rows = rowsOf(outputs[name] as HostTensor, cohort.rows.length);
    return { rows, durationMs, flops: this.#flops(cut, cohort) };
  }

  /** Feeds of a run: the sample, what timestep, condition and size give, and the state that forecasts read. */
  #feeds(cut: Cut, cohort: Cohort, step: number): Record<string, Feed> {
    const { backbone, conditioning, sampler, method } = this.#run;
    const { sample } = backbone;
    const graph = this.#graph(cut);
    const { inputs, begin, forecasts } = backbone.cut(graph);
    const rows = cohort.rows.map(({ row }) => row.condition);
    const feeds = conditioning.feeds(graph, step, rows, cohort.sizes);
    if (inputs.has(sample.name)) {
      const scale = sampler.inputScale(step);
      const latents = concat(cohort.rows.map(({ image }) => image.state.latent));
      const dims = [rows.length, ...bindShape(sample.shape, cohort.sizes)];
      feeds[sample.name] = { dtype: "float32", dims, data: scale === 1 ? latents : latents.map((x) => x * scale) };
    }
    for (const stream of begin) feeds[stream] = { held: cohort.stream(stream) };
    if (cut.forecast && method.forecaster) {
      Object.assign(feeds, cohort.features(cut.forecast).combine(sampler.position(step), forecasts));
    }
    return feeds;
  }

  #flops(cut: Cut, cohort: Cohort): number {
    const { backbone, method } = this.#run;
    return cutFlops(backbone, method, cut, { ...cohort.sizes, [BATCH]: cohort.rows.length });
  }

  /** A cut with the shape of the state that it forecasts from. */
  #graph(cut: Cut): Cut {
    return graphOf(cut, this.#run.method);
  }

  #cutOf(kind: string): Cut {
    const cut = this.#run.method.cuts[kind];
    if (!cut) throw new Error(`the policy decided for "${kind}", which the method does not have`);
    return cut;
  }

  #at(step: number) {
    return { step, numSteps: this.#run.sampler.timesteps.length };
  }
}

/** Images whose runs have the same shapes. */
function bySize(images: readonly ImageRun[]): ImageRun[][] {
  const groups = new Map<string, ImageRun[]>();
  for (const image of images) {
    const key = canonical([image.sizes, image.rows.length]);
    groups.set(key, [...(groups.get(key) ?? []), image]);
  }
  return [...groups.values()];
}

const notFinite = (what: string, image: number, step: number): FemoError =>
  new FemoError(
    "E_RUNTIME",
    `${what} not finite at step ${step} of image ${image}: expected numbers, found NaN or infinity. The weights may be ` +
      "damaged, or the guidance scale or the latents given too large.",
  );

/** True if every element is a finite number. */
function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

function rowsOf({ data }: HostTensor, rows: number): Float32Array[] {
  const size = data.length / rows;
  return Array.from({ length: rows }, (_, i) => (data as Float32Array).subarray(i * size, (i + 1) * size));
}

function concat(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** |now - then| / |then| */
function relativeChange(now: Float32Array, then: Float32Array, measure: "l1" | "l2"): number {
  const power = measure === "l1" ? Math.abs : (x: number) => x * x;
  let [change, size] = [0, 0];
  for (let i = 0; i < now.length; i++) {
    change += power((now[i] as number) - (then[i] as number));
    size += power(then[i] as number);
  }
  const ratio = change / size;
  return measure === "l1" ? ratio : Math.sqrt(ratio);
}
