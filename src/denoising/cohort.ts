import { type Bindings, bindShape, sizeOf, type Value } from "../graph/index.js";
import type { Method } from "../methods/index.js";
import type { Engine } from "../runtime/engine.js";
import type { SamplerState } from "../samplers/index.js";
import { BATCH, canonical, type FeatureSite, graphNames, type Region } from "../tracing/index.js";
import type { Backbone, CutNetwork } from "./backbone.js";
import type { DenoisedState } from "./denoised-state.js";
import { cachesOf, FeatureState } from "./feature-state.js";
import type { GuidanceRow } from "./guidance.js";
import type { ImageStart } from "./records.js";
import type { StepNoise } from "./step-noise.js";

/** An image on its way. */
export interface ImageRun {
  /** In the request. */
  readonly index: number;
  readonly rows: readonly GuidanceRow[];
  /** What the symbols of the model's sample are for it. */
  readonly sizes: Bindings;
  state: SamplerState;
  /** See `ImageStart`. */
  readonly given: NonNullable<ImageStart["given"]>;
  readonly keep: ImageStart["keep"];
  /** What its sampler draws. */
  readonly noise: StepNoise;
  /** Of the policy. */
  memory: unknown;
  /** The same before it decided about the step under way. */
  memoryBefore: unknown;
  /** Whether the guard wants the step under way to be full. */
  due: boolean;
  /** Of methods that forecast x0. */
  readonly x0: DenoisedState | undefined;
  /** Of hindsight: the forecast steps since the last full one, and where it left the image. */
  trail: { readonly from: SamplerState; readonly steps: readonly { readonly step: number; readonly kind: string }[] };
  /** What each look saw before the step under way. */
  looked: { readonly values: readonly Float32Array[]; readonly changes: readonly (number | undefined)[] };
  /** What it saw to compare with: at the last step, and at the last one that computed everything. */
  seen: { lastStep: readonly Float32Array[]; lastFull: readonly Float32Array[] } | undefined;
}

/**
 * Images of one size that have gone through the same steps so far, and so share runs and a state of features. Where
 * their policy decides differently they part, for good.
 */
export class Cohort {
  readonly images: readonly ImageRun[];
  readonly #engine: Engine;
  /** Of the names under which the engine holds its state. */
  readonly #prefix: string;
  /** By region. */
  readonly #features: ReadonlyMap<string, FeatureState>;
  /** What graphs left for later ones beside features, such as the streams at which a look ended; and its bytes. */
  readonly #left: Map<string, number>;
  /** All that have state in the engine, these images among them. */
  readonly #alive: Set<Cohort>;

  private constructor(
    engine: Engine,
    prefix: string,
    images: readonly ImageRun[],
    features: ReadonlyMap<string, FeatureState>,
    alive: Set<Cohort>,
    left: Iterable<readonly [string, number]> = [],
  ) {
    this.#engine = engine;
    this.#prefix = prefix;
    this.images = images;
    this.#features = features;
    this.#left = new Map(left);
    this.#alive = alive;
    alive.add(this);
  }

  /**
   * Images before their first step.
   * @param alive where cohorts are entered as long as they have state in the engine, those that come of this one too
   */
  static async start(
    backbone: Backbone,
    method: Method,
    prefix: string,
    images: readonly ImageRun[],
    alive: Set<Cohort>,
  ): Promise<Cohort> {
    const features = new Map<string, FeatureState>();
    const cohort = new Cohort(backbone.sessions.engine, prefix, images, features, alive);
    const owners = cohort.rows.map(({ image }) => image.index);
    for (const cache of cachesOf(method)) {
      const name = `${prefix}:${features.size}`;
      const state = await FeatureState.start(backbone, name, cache, owners, cohort.sizes);
      features.set(canonical(cache.capture.capture as Region), state);
    }
    return cohort;
  }

  /** The rows of a run: the first of every image, then the second of every image, and so on. */
  get rows(): readonly { readonly image: ImageRun; readonly row: GuidanceRow }[] {
    const count = this.images[0]?.rows.length ?? 0;
    return Array.from({ length: count }, (_, i) =>
      this.images.map((image) => ({ image, row: image.rows[i] as GuidanceRow })),
    ).flat();
  }

  /** Which of its rows are of some of its images, image by image. */
  rowsOf(images: readonly ImageRun[]): number[] {
    const { rows } = this;
    return images.flatMap((image) => rows.flatMap((row, i) => (row.image === image ? [i] : [])));
  }

  get sizes(): Bindings {
    return (this.images[0] as ImageRun).sizes;
  }

  /** The state that a step which captures a region feeds. */
  captured(region: Region): FeatureState {
    return this.#features.get(canonical(region)) as FeatureState;
  }

  /** The state that has all of these features. */
  having(features: readonly FeatureSite[]): FeatureState {
    return [...this.#features.values()].find((state) => state.has(features)) as FeatureState;
  }

  /** Under which name the engine holds what a graph left for later ones. */
  left(name: string): string {
    return `${this.#prefix}:${name}`;
  }

  /** Where a graph's run is to leave what later ones begin with: its outputs by name. @param wanted what they begin with */
  leave({ network, end, takes, leaves }: CutNetwork, wanted: ReadonlySet<string>): Record<string, string> {
    const bindings = { ...this.sizes, [BATCH]: this.rows.length };
    const left = [...end, ...leaves].filter((name) => wanted.has(name));
    return Object.fromEntries(
      left.map((name) => {
        const output = takes.includes(name) ? graphNames.next(name) : name;
        const { value } = network.graph.outputs.find((port) => port.name === output) as { value: Value };
        const bytes = value.dtype === "int64" ? BigInt64Array.BYTES_PER_ELEMENT : Float32Array.BYTES_PER_ELEMENT;
        this.#left.set(name, bytes * sizeOf(bindShape(value.shape, bindings)));
        return [output, this.left(name)];
      }),
    );
  }

  /** Bytes kept from step to step. */
  get bytes(): number {
    const sizes = [
      ...[...this.#features.values()].map(({ bytes }) => bytes),
      ...this.#left.values(),
      ...this.images.map(({ x0 }) => x0?.bytes ?? 0),
    ];
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** By a value of each image: those with the same one stay together. The cohort itself is not to be used any more. */
  async split<T>(values: readonly T[]): Promise<{ readonly cohort: Cohort; readonly value: T }[]> {
    const distinct = [...new Set(values)];
    if (distinct.length === 1) return [{ cohort: this, value: values[0] as T }];
    const parts = [];
    for (const [part, value] of distinct.entries()) {
      const images = this.images.filter((_, i) => values[i] === value);
      const kept = this.rows.flatMap(({ image }, row) => (images.includes(image) ? [row] : []));
      const prefix = `${this.#prefix}.${part}`;
      const features = new Map<string, FeatureState>();
      const cohort = new Cohort(this.#engine, prefix, images, features, this.#alive, this.#left);
      for (const [key, state] of this.#features) {
        features.set(key, await state.select(`${prefix}:${features.size}`, kept));
      }
      const taken = [...this.#left.keys()].map((name) => [cohort.left(name), { from: this.left(name), rows: kept }]);
      if (taken.length > 0) await this.#engine.take(Object.fromEntries(taken));
      parts.push({ cohort, value });
    }
    await this.free();
    return parts;
  }

  async free(): Promise<void> {
    this.#alive.delete(this);
    await this.#engine.free([...this.#left.keys()].map((name) => this.left(name)));
    await Promise.all([...this.#features.values()].map((state) => state.free()));
  }
}
