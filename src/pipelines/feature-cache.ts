import type { Forecaster, FullStep } from "../forecasts/index.js";
import { BATCH, bindShape, type FeatureSite, type Granularity, kernelNames, names } from "../graph/index.js";
import type { Engine, Feed, HostTensor, RunRequest } from "../runtime/engine.js";
import { Coefficients, type MeasuredForecast } from "./coefficients.js";
import type { GraphKind, ModelRunner } from "./model-runner.js";

export interface FeatureCacheOptions {
  readonly forecaster: Forecaster;
  readonly granularity: Granularity;
  /** Measure what would have been forecast at every full step. A forecaster that adapts needs it. */
  readonly measure: boolean;
}

/** What a full step taught. */
export interface Learned {
  /** Unless nothing was measured or nothing had been forecast. */
  readonly forecast: MeasuredForecast | undefined;
  /** Time in the runtime. */
  readonly durationMs: number;
}

/**
 * The features of one request, batch after batch: their state, which stays with the engine, and the coefficients that
 * move it. It says what a step's run needs beyond the model's own inputs.
 *
 * Nothing is copied: a full step writes each true feature into the slot of the one that falls out of the history, and
 * the averages of one feature are written where those of the feature before it were.
 */
export class FeatureCache {
  readonly #engine: Engine;
  readonly #runner: ModelRunner;
  readonly #request: string;
  readonly #forecaster: Forecaster;
  readonly #features: readonly FeatureSite[];
  readonly #measure: boolean;
  /** What runs at a full and at a forecast step, and for each feature after a full one. */
  readonly graphs: { readonly full: GraphKind; readonly forecast: GraphKind; readonly kernels: readonly GraphKind[] };
  /** Under which name each feature's averages are held, and by elements the buffer into which the next ones go. */
  #averages: string[] = [];
  #spare = new Map<number, string>();
  #samples = 0;
  /** Full steps of this batch. */
  #seen = 0;
  #coefficients: Coefficients | undefined;

  /** @param request prefix of the names under which the engine holds the state */
  constructor(engine: Engine, runner: ModelRunner, request: string, options: FeatureCacheOptions) {
    const { forecaster, granularity, measure } = options;
    this.#engine = engine;
    this.#runner = runner;
    this.#request = request;
    this.#forecaster = forecaster;
    this.#features = runner.features(granularity);
    this.#measure = measure;
    const { history, recent, averages } = forecaster;
    const kernel = (work: { measure: boolean; update: boolean }): GraphKind[] =>
      work.measure || work.update ? [{ kind: "feature", history, averages, ...work }] : [];
    const update = averages > 0;
    this.graphs = {
      full: { kind: "full", granularity },
      forecast: { kind: "forecast", granularity, history: recent, averages },
      kernels: forecaster.adapt
        ? [...kernel({ measure, update: false }), ...kernel({ measure: false, update })]
        : kernel({ measure, update }),
    };
  }

  /** Bytes that the engine holds for a batch: the state, and the buffers into which the next full step writes. */
  bytes(samples: number): number {
    const size = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);
    const elements = Object.values(this.#buffers(samples)).reduce((sum, dims) => sum + size(dims), 0);
    return Float32Array.BYTES_PER_ELEMENT * elements;
  }

  /** Floating-point operations of what is done with the features after a full step. */
  kernelFlops(samples: number): number {
    const each = (elements: number): number =>
      this.graphs.kernels.reduce((sum, kernel) => sum + this.#runner.flops(kernel, samples, elements), 0);
    return this.#features.reduce((sum, { elements }) => sum + each(elements), 0);
  }

  /** Forgets everything. @param images which image each sample of the next batch belongs to */
  async start(images: readonly number[]): Promise<void> {
    this.#coefficients = new Coefficients(this.#forecaster, this.#features.length, images);
    this.#samples = images.length;
    this.#seen = 0;
    this.#averages = this.#features.map(({ name }) => this.#name(`averages:${name}`));
    this.#spare = new Map(this.#features.map(({ elements }) => [elements, this.#spareName(elements)]));
    await this.#engine.holdZeros(this.#buffers(images.length));
  }

  /** What a full step leaves with the engine, the true features, and under which names. */
  capture(): Record<string, string> {
    return Object.fromEntries(this.#features.map(({ name }, i) => [names.feature(name), this.#slot(i, this.#seen)]));
  }

  /** After a full step: measures the forecasts it would have had, adapts to them, and moves the averages. */
  async learn(step: FullStep): Promise<Learned> {
    const coefficients = this.#started();
    coefficients.expect(step.position);
    const { adapt } = this.#forecaster;
    const [first, second] = this.graphs.kernels;
    const early = adapt ? undefined : coefficients.update(step);
    const results = first ? await this.#runner.runEach(first, this.#kernelRuns(first, early)) : [];
    const forecast = this.#measure
      ? coefficients.measure(results.map(({ outputs }) => outputs[kernelNames.gram] as HostTensor))
      : undefined;
    if (adapt) {
      const late = coefficients.update(step);
      if (second) results.push(...(await this.#runner.runEach(second, this.#kernelRuns(second, late))));
    }
    this.#seen++;
    return { forecast, durationMs: results.reduce((sum, { durationMs }) => sum + durationMs, 0) };
  }

  /** Feeds of a forecast step, F^ = c S. */
  combine(position: number): Record<string, Feed> {
    const feeds: Record<string, Feed> = { [names.combine]: this.#started().combine(position) };
    for (const [i, { name }] of this.#features.entries()) {
      for (let age = 0; age < this.#forecaster.recent; age++) {
        feeds[names.history(name, age)] = this.#row(i, this.#seen - 1 - age);
      }
      if (this.#forecaster.averages > 0) feeds[names.averages(name)] = { held: this.#averages[i] as string };
    }
    return feeds;
  }

  /** The momentum coefficients in force, if the forecaster has one. */
  beta(): ReturnType<Coefficients["beta"]> {
    return this.#started().beta();
  }

  async free(): Promise<void> {
    await this.#engine.free(Object.keys(this.#buffers(1)));
  }

  /** One run of a kernel for each feature. */
  #kernelRuns(graph: GraphKind, updates: readonly HostTensor[] | undefined): RunRequest[] {
    const { measure, update } = graph as Extract<GraphKind, { kind: "feature" }>;
    return this.#features.map(({ elements }, i) => {
      const feeds: Record<string, Feed> = { [kernelNames.feature]: this.#row(i, this.#seen) };
      for (let age = 0; age < this.#forecaster.history; age++) {
        feeds[kernelNames.history(age)] = this.#row(i, this.#seen - 1 - age);
      }
      const old = this.#averages[i] as string;
      if (this.#forecaster.averages > 0) feeds[kernelNames.averages] = { held: old };
      const fetch = measure ? [kernelNames.gram] : [];
      if (!update || !updates) return { feeds, fetch };
      feeds[kernelNames.update] = updates[i] as HostTensor;
      const next = this.#spare.get(elements) as string;
      this.#averages[i] = next;
      this.#spare.set(elements, old);
      return { feeds, fetch, hold: { [kernelNames.nextAverages]: next } };
    });
  }

  /** Slots of the history: one more than it is long if the oldest is read while the newest is there. */
  get #slots(): number {
    return this.#forecaster.history + (this.graphs.kernels.length > 0 ? 1 : 0);
  }

  /** The name of the feature that a full step of this batch saw, counted from 0; before 0 lie zeros. */
  #slot(feature: number, seen: number): string {
    const slot = (seen + this.#slots) % this.#slots;
    return this.#name(`history:${this.#features[feature]?.name}:${slot}`);
  }

  /** The same as a row of S. */
  #row(feature: number, seen: number): Feed {
    const { elements } = this.#features[feature] as FeatureSite;
    return { held: this.#slot(feature, seen), dims: [this.#samples, 1, elements] };
  }

  /** All that the engine holds for a batch, by name. */
  #buffers(samples: number): Record<string, number[]> {
    const { averages } = this.#forecaster;
    const buffers: Record<string, number[]> = {};
    for (const [i, { name, shape, elements }] of this.#features.entries()) {
      for (let slot = 0; slot < this.#slots; slot++)
        buffers[this.#slot(i, slot)] = bindShape(shape, { [BATCH]: samples });
      if (averages === 0) continue;
      buffers[this.#name(`averages:${name}`)] = [samples, averages, elements];
      buffers[this.#spareName(elements)] = [samples, averages, elements];
    }
    return buffers;
  }

  #spareName(elements: number): string {
    return this.#name(`averages:spare:${elements}`);
  }

  #name(part: string): string {
    return `${this.#request}:${part}`;
  }

  #started(): Coefficients {
    if (!this.#coefficients) throw new Error("a feature cache is used before its first batch");
    return this.#coefficients;
  }
}
