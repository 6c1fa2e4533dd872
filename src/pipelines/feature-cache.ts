import type { Forecaster } from "../forecasts/index.js";
import type { FeatureSite } from "../graph/index.js";
import { names } from "../graph/trace.js";
import type { Engine, Feed, RunRequest, RunResult } from "../runtime/engine.js";
import { Coefficients, type MeasuredForecast } from "./coefficients.js";

/**
 * The features of one request, batch after batch: their state, which stays with the engine, and the coefficients that
 * move it. It says what a step's run needs beyond the model's own inputs.
 */
export class FeatureCache {
  readonly #engine: Engine;
  readonly #request: string;
  readonly #forecaster: Forecaster;
  readonly #features: readonly FeatureSite[];
  readonly #measure: boolean;
  #coefficients: Coefficients | undefined;

  /** @param request prefix of the names under which the engine holds the state */
  constructor(
    engine: Engine,
    request: string,
    forecaster: Forecaster,
    features: readonly FeatureSite[],
    measure: boolean,
  ) {
    this.#engine = engine;
    this.#request = request;
    this.#forecaster = forecaster;
    this.#features = features;
    this.#measure = measure;
  }

  /** k, the tensors that each feature's state has. */
  get rows(): number {
    return this.#forecaster.stateSize;
  }

  /** Bytes of the state of a batch. */
  bytes(samples: number): number {
    const elements = this.#features.reduce((total, feature) => total + feature.elements, 0);
    return Float32Array.BYTES_PER_ELEMENT * samples * this.rows * elements;
  }

  /** Forgets everything. @param images which image each sample of the next batch belongs to */
  async start(images: readonly number[]): Promise<void> {
    this.#coefficients = new Coefficients(this.#forecaster, this.#features.length, images);
    const dims = this.#features.map(({ name, elements }) => [this.#held(name), [images.length, this.rows, elements]]);
    await this.#engine.holdZeros(Object.fromEntries(dims));
  }

  /** Of a full step: S <- U [S; F], and the Gram matrices if forecasts are measured. */
  update(position: number, differences: boolean): Required<RunRequest> {
    return {
      feeds: { ...this.#states(), [names.update]: this.#started().update({ position, differences }) },
      fetch: this.#measure ? [names.gram] : [],
      hold: Object.fromEntries(this.#features.map(({ name }) => [names.nextState(name), this.#held(name)])),
    };
  }

  /** Of a forecast step: F^ = c S. */
  combine(position: number): Required<RunRequest> {
    return { feeds: { ...this.#states(), [names.combine]: this.#started().combine(position) }, fetch: [], hold: {} };
  }

  /** Takes in what a full step measured; the coefficients may adapt to it. */
  measured({ outputs }: RunResult): MeasuredForecast | undefined {
    const gram = outputs[names.gram];
    return gram && this.#started().measure(gram);
  }

  /** The momentum coefficients in force, if the forecaster has one. */
  beta(): ReturnType<Coefficients["beta"]> {
    return this.#started().beta();
  }

  async free(): Promise<void> {
    await this.#engine.free(this.#features.map(({ name }) => this.#held(name)));
  }

  #started(): Coefficients {
    if (!this.#coefficients) throw new Error("a feature cache is used before its first batch");
    return this.#coefficients;
  }

  #states(): Record<string, Feed> {
    return Object.fromEntries(this.#features.map(({ name }) => [names.state(name), { held: this.#held(name) }]));
  }

  #held(feature: string): string {
    return `${this.#request}:${names.state(feature)}`;
  }
}
