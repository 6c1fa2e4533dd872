import { sizeOf } from "../graph/index.js";
import { type Forecaster, type FullStep, stateSize } from "../methods/forecasts/index.js";
import type { HostTensor } from "../runtime/engine.js";
import { Coefficients, type SquaredErrors } from "./coefficients.js";

/** Floating-point operations of one forecast of x0. @param size elements of a sample */
export const forecastX0Flops = ({ recent, averages }: Forecaster, size: number): number =>
  2 * size * (recent + averages);

/** The same of what is done with x0 after a full step. */
export function learnX0Flops(forecaster: Forecaster, size: number, measure: boolean): number {
  const rows = stateSize(forecaster) + 1;
  const measured = measure || forecaster.adapt !== undefined ? rows : 0;
  return 2 * size * rows * (measured + forecaster.averages);
}

/**
 * What is kept of x0 of one image, forecast like any feature. It is as small as the sample, so it stays out of the engine:
 * a forecast of it needs no graph.
 */
export class DenoisedState {
  readonly #forecaster: Forecaster;
  readonly #measure: boolean;
  readonly #size: number;
  readonly #coefficients: Coefficients;
  /** The last x0, newest first, and the averages: S. */
  #history: readonly Float32Array[];
  #averages: readonly Float32Array[];

  /**
   * @param image its index in the request
   * @param size elements of a sample
   * @param measure what would have been forecast, at every full step
   */
  constructor(forecaster: Forecaster, image: number, size: number, measure: boolean) {
    const zeros = (count: number) => Array.from({ length: count }, () => new Float32Array(size));
    this.#forecaster = forecaster;
    this.#measure = measure || forecaster.adapt !== undefined;
    this.#size = size;
    this.#coefficients = Coefficients.start(forecaster, 1, [image]);
    this.#history = zeros(forecaster.history);
    this.#averages = zeros(forecaster.averages);
  }

  get bytes(): number {
    return Float32Array.BYTES_PER_ELEMENT * this.#size * stateSize(this.#forecaster);
  }

  /** See `forecastX0Flops`. */
  get forecastFlops(): number {
    return forecastX0Flops(this.#forecaster, this.#size);
  }

  /** See `learnX0Flops`. */
  get learnFlops(): number {
    return learnX0Flops(this.#forecaster, this.#size, this.#measure);
  }

  /**
   * Takes in x0 of a full step.
   * @returns how far its forecast would have been off, if that was measured
   */
  learn(x0: Float32Array, step: FullStep): SquaredErrors | undefined {
    const state = [...this.#history, ...this.#averages, x0]; // [S; F]
    const coefficients = this.#coefficients;
    coefficients.expect(step.position);
    const squares = this.#measure ? coefficients.measure([gramOf(state)]) : undefined;
    const [update] = coefficients.update(step) as [HostTensor];
    this.#averages = this.#averages.map((_, i) => combined(rowOf(update, i, state.length), state));
    this.#history = [x0, ...this.#history.slice(0, -1)];
    return squares;
  }

  /** x0 at another step, before or behind the last full one. */
  forecast(position: number): Float32Array {
    const { recent } = this.#forecaster;
    const c = this.#coefficients.combine(position, [0]);
    return combined(c.data as Float32Array, [...this.#history.slice(0, recent), ...this.#averages]);
  }

  /** The momentum coefficient in force, if the forecaster has one. */
  beta(): ReturnType<Coefficients["beta"]> {
    return this.#coefficients.beta();
  }
}

const rowOf = ({ data }: HostTensor, row: number, length: number): Float32Array =>
  (data as Float32Array).subarray(row * length, (row + 1) * length);

/** Weighted sum of tensors. */
function combined(weights: Float32Array, tensors: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(tensors[0]?.length ?? 0);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let t = 0; t < tensors.length; t++)
      sum += (weights[t] as number) * ((tensors[t] as Float32Array)[i] as number);
    out[i] = sum;
  }
  return out;
}

/** [1, k + 1, k + 1] */
function gramOf(rows: readonly Float32Array[]): HostTensor {
  const dims = [1, rows.length, rows.length];
  const data = new Float32Array(sizeOf(dims));
  rows.forEach((a, i) => {
    rows.forEach((b, j) => {
      let sum = 0;
      for (let e = 0; e < a.length; e++) sum += (a[e] as number) * (b[e] as number);
      data[i * rows.length + j] = sum;
    });
  });
  return { dtype: "float32", dims, data };
}
