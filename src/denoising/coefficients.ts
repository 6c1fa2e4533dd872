import { type Forecaster, type FullStep, type Gram, measuredError, stateSize } from "../methods/forecasts/index.js";
import type { HostTensor } from "../runtime/engine.js";

/** How far the forecast of a full step was off, over all features and samples. */
export interface MeasuredForecast {
  /** |F - F^| / |F|, root mean square over features and samples. */
  readonly relativeError: number;
  /** The same for each sample, root mean square over features. */
  readonly bySample: readonly number[];
  /** The same for each feature, in the order of the sites. */
  readonly byFeature: readonly number[];
}

/** |F - F^|^2 / |F|^2 of each sample, for each feature in turn. */
export type SquaredErrors = readonly (readonly number[])[];

/** @param rows the samples to count */
export function measuredForecast(squares: SquaredErrors, rows: readonly number[]): MeasuredForecast {
  const kept = squares.map((feature) => rows.map((row) => feature[row] as number));
  return {
    relativeError: rootMean(kept.flat()),
    bySample: rows.map((_, sample) => rootMean(kept.map((feature) => feature[sample] as number))),
    byFeature: kept.map(rootMean),
  };
}

/** What a `Coefficients` is made of. */
interface Parts {
  readonly forecaster: Forecaster;
  readonly features: number;
  readonly samples: number;
  /** Which memory serves a feature of a sample: one index for each (feature, sample) in turn. */
  readonly memoryOf: readonly number[];
  readonly memories: unknown[];
}

/**
 * The coefficients of one batch: the forecaster's memories, each for the features and samples that its scope has in
 * common, as float32 tensors for the graphs. A full step goes: `expect`, then `update`, and `measure` when its Gram
 * matrices are there; a forecaster that adapts is measured before it is updated.
 */
export class Coefficients {
  readonly #forecaster: Forecaster;
  readonly #features: number;
  readonly #samples: number;
  readonly #memoryOf: readonly number[];
  #memories: unknown[];
  /** What each memory forecasts for the full step under way. */
  #predictions: (readonly number[] | undefined)[] = [];

  private constructor({ forecaster, features, samples, memoryOf, memories }: Parts) {
    this.#forecaster = forecaster;
    this.#features = features;
    this.#samples = samples;
    this.#memoryOf = memoryOf;
    this.#memories = memories;
  }

  /** Before the first step. @param images which image each sample belongs to: guidance rows share their image's first beta */
  static start(forecaster: Forecaster, features: number, images: readonly number[]): Coefficients {
    const { feature: perFeature, row: perRow } = forecaster.memoryPer ?? { feature: false, row: false };
    const memories = new Map<string, { index: number; image: number }>();
    const memoryOf = Array.from({ length: features * images.length }, (_, cell) => {
      const [feature, row] = [Math.floor(cell / images.length), cell % images.length];
      const image = images[row] as number;
      const key = `${perFeature ? feature : "all"} ${perRow ? row : `image ${image}`}`;
      const memory = memories.get(key) ?? { index: memories.size, image };
      memories.set(key, memory);
      return memory.index;
    });
    return new Coefficients({
      forecaster,
      features,
      samples: images.length,
      memoryOf,
      memories: [...memories.values()].map(({ image }) => forecaster.start(image)),
    });
  }

  /** Those of some of the samples, which go on alone. */
  select(rows: readonly number[]): Coefficients {
    const kept = Array.from({ length: this.#features }, (_, feature) =>
      rows.map((row) => this.#memoryOf[feature * this.#samples + row] as number),
    ).flat();
    const used = [...new Set(kept)];
    return new Coefficients({
      forecaster: this.#forecaster,
      features: this.#features,
      samples: rows.length,
      memoryOf: kept.map((memory) => used.indexOf(memory)),
      memories: used.map((memory) => this.#memories[memory]),
    });
  }

  /** A full step comes to its features: what would have been forecast for them is what `measure` judges. */
  expect(position: number): void {
    this.#predictions = this.#memories.map((memory) => this.#forecaster.combine(memory, position));
  }

  /** U for a full step, of each feature [samples, r, k + 1]; the memories move on. */
  update(step: FullStep): HostTensor[] {
    const updates = this.#memories.map((memory) => this.#forecaster.update(memory, step));
    this.#memories = updates.map(({ memory }) => memory);
    const flat = updates.map(({ rows }) => rows.flat());
    const [rows, columns] = [this.#forecaster.averages, stateSize(this.#forecaster) + 1];
    return Array.from({ length: this.#features }, (_, feature) => ({
      dtype: "float32",
      dims: [this.#samples, rows, columns],
      data: Float32Array.from(this.#memoriesOf(feature).flatMap((memory) => flat[memory] as number[])),
    }));
  }

  /**
   * c for a forecast step without what is always zero, [features, samples, 1, recent + averages].
   * @param features those that the step forecasts
   */
  combine(position: number, features: readonly number[]): HostTensor {
    const weights = this.#memories.map((memory) => this.#forecaster.combine(memory, position));
    if (weights.includes(undefined)) throw new Error("a forecast before the first full step");
    const { history, recent, averages } = this.#forecaster;
    const used = weights.map((row) => (row as readonly number[]).filter((_, i) => i < recent || i >= history));
    return {
      dtype: "float32",
      dims: [features.length, this.#samples, 1, recent + averages],
      data: Float32Array.from(
        features.flatMap((feature) => this.#memoriesOf(feature).flatMap((memory) => used[memory] as readonly number[])),
      ),
    };
  }

  /**
   * Takes in the Gram matrices of a full step, after `expect` and, if the forecaster adapts, before `update`.
   * @param grams of each feature, [samples, k + 1, k + 1]
   * @returns undefined at the first full step, which nothing predicted
   */
  measure(grams: readonly HostTensor[]): SquaredErrors | undefined {
    if (this.#predictions.includes(undefined)) return undefined;
    const predictions = this.#predictions as (readonly number[])[];
    const side = stateSize(this.#forecaster) + 1;
    const cells = grams.flatMap(({ data }) =>
      Array.from({ length: this.#samples }, (_, row) =>
        (data as Float32Array).subarray(row * side * side, (row + 1) * side * side),
      ),
    );
    const squares = cells.map((cell, i) => {
      const { error2, norm2 } = measuredError(square(cell, side), predictions[this.#memoryOf[i] as number] ?? []);
      return norm2 > 0 ? error2 / norm2 : 0;
    });
    if (this.#forecaster.adapt) {
      const sums = this.#memories.map(() => new Float64Array(side * side));
      cells.forEach((cell, i) => {
        const sum = sums[this.#memoryOf[i] as number] as Float64Array;
        for (let at = 0; at < sum.length; at++) sum[at] = (sum[at] as number) + (cell[at] as number);
      });
      this.#memories = this.#memories.map((memory, i) =>
        this.#forecaster.adapt?.(memory, square(sums[i] as Float64Array, side), predictions[i] as readonly number[]),
      );
    }
    return Array.from({ length: this.#features }, (_, feature) =>
      squares.slice(feature * this.#samples, (feature + 1) * this.#samples),
    );
  }

  /** Mean, least and greatest beta in force. */
  beta(): { mean: number; min: number; max: number } | undefined {
    const { beta } = this.#forecaster;
    if (!beta) return undefined;
    const all = this.#memories.map((memory) => beta(memory));
    return { mean: mean(all), min: Math.min(...all), max: Math.max(...all) };
  }

  /** Which memory serves each sample of a feature. */
  #memoriesOf(feature: number): readonly number[] {
    return this.#memoryOf.slice(feature * this.#samples, (feature + 1) * this.#samples);
  }
}

const square = (values: ArrayLike<number>, side: number): Gram =>
  Array.from({ length: side }, (_, row) =>
    Array.from({ length: side }, (_, column) => values[row * side + column] as number),
  );
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const rootMean = (squares: readonly number[]): number => Math.sqrt(mean(squares));
