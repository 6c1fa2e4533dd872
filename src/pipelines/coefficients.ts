import { type Forecaster, type FullStep, type Gram, measuredError } from "../forecasts/index.js";
import type { HostTensor } from "../runtime/engine.js";

/** How far the forecast of a full step was off, over all features and samples. */
export interface MeasuredForecast {
  /** |F - F^| / |F|, root mean square over features and samples. */
  readonly relativeError: number;
  /** The same for each feature, in the order of the sites. */
  readonly byFeature: readonly number[];
}

/**
 * The coefficients of one request: a forecaster's memories for every feature and sample, or one memory a sample where
 * the forecaster does not adapt, as float32 tensors for the graphs.
 */
export class Coefficients {
  readonly #forecaster: Forecaster;
  readonly #features: number;
  readonly #samples: number;
  /** [memory of feature][sample]; a single list serves all features of a forecaster that does not adapt. */
  #memories: unknown[][];
  /** What `combine` gave just before the last update, likewise. */
  #predictions: (readonly number[] | undefined)[][] = [];

  /** @param images which image each sample of the batch belongs to: guidance rows share their image's beta */
  constructor(forecaster: Forecaster, features: number, images: readonly number[]) {
    this.#forecaster = forecaster;
    this.#features = features;
    this.#samples = images.length;
    const lists = forecaster.adapt ? features : 1;
    this.#memories = Array.from({ length: lists }, () => images.map((image) => forecaster.start(image)));
  }

  /** U for a full step, [features, samples, k, k + 1]; the memories move on. */
  update(step: FullStep): HostTensor {
    const k = this.#forecaster.stateSize;
    this.#predictions = this.#memories.map((list) =>
      list.map((memory) => this.#forecaster.combine(memory, step.position)),
    );
    const rows: (readonly number[])[][][] = [];
    this.#memories = this.#memories.map((list) => {
      const updates = list.map((memory) => this.#forecaster.update(memory, step));
      rows.push(updates.map((update) => [...update.rows]));
      return updates.map((update) => update.memory);
    });
    return this.#tensor([k, k + 1], (list, sample) => (rows[list] as (readonly number[])[][])[sample]?.flat() ?? []);
  }

  /** c for a forecast step, [features, samples, 1, k]. */
  combine(position: number): HostTensor {
    return this.#tensor([1, this.#forecaster.stateSize], (list, sample) => {
      const weights = this.#forecaster.combine((this.#memories[list] as unknown[])[sample], position);
      if (!weights) throw new Error("a forecast before the first full step");
      return weights;
    });
  }

  /**
   * Takes in the Gram matrices of a full step, [features, samples, k + 1, k + 1].
   * @returns undefined at the first full step, which nothing predicted
   */
  measure(grams: HostTensor): MeasuredForecast | undefined {
    const side = this.#forecaster.stateSize + 1;
    const data = grams.data as Float32Array;
    const gramOf = (feature: number, sample: number): Gram => {
      const start = (feature * this.#samples + sample) * side * side;
      return Array.from({ length: side }, (_, i) =>
        Array.from(data.subarray(start + i * side, start + (i + 1) * side)),
      );
    };
    const byFeature: number[] = [];
    for (let feature = 0; feature < this.#features; feature++) {
      const list = this.#forecaster.adapt ? feature : 0;
      let sum = 0;
      for (let sample = 0; sample < this.#samples; sample++) {
        const prediction = (this.#predictions[list] ?? [])[sample];
        if (!prediction) return undefined;
        const gram = gramOf(feature, sample);
        const { error2, norm2 } = measuredError(gram, prediction);
        sum += norm2 > 0 ? error2 / norm2 : 0;
        if (this.#forecaster.adapt) {
          const memories = this.#memories[feature] as unknown[];
          memories[sample] = this.#forecaster.adapt(memories[sample], gram, prediction);
        }
      }
      byFeature.push(Math.sqrt(sum / this.#samples));
    }
    const relativeError = Math.sqrt(byFeature.reduce((sum, e) => sum + e * e, 0) / this.#features);
    return { relativeError, byFeature };
  }

  /** Mean, least and greatest beta in force. */
  beta(): { mean: number; min: number; max: number } | undefined {
    const { beta } = this.#forecaster;
    if (!beta) return undefined;
    const all = this.#memories.flatMap((list) => list.map((memory) => beta(memory)));
    return { mean: all.reduce((a, b) => a + b, 0) / all.length, min: Math.min(...all), max: Math.max(...all) };
  }

  #tensor(dims: [number, number], of: (list: number, sample: number) => readonly number[]): HostTensor {
    const size = dims[0] * dims[1];
    const perFeature = this.#samples * size;
    const data = new Float32Array(this.#features * perFeature);
    for (let list = 0; list < this.#memories.length; list++) {
      for (let sample = 0; sample < this.#samples; sample++) {
        data.set(of(list, sample), list * perFeature + sample * size);
      }
    }
    if (this.#memories.length === 1) {
      for (let feature = 1; feature < this.#features; feature++) data.copyWithin(feature * perFeature, 0, perFeature);
    }
    return { dtype: "float32", dims: [this.#features, this.#samples, ...dims], data };
  }
}
