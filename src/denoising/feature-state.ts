import { FemoError } from "../errors.js";
import { type Bindings, bindDim, bindShape, sizeOf } from "../graph/index.js";
import type { Forecaster, FullStep } from "../methods/forecasts/index.js";
import { type Look, type Method, X0 } from "../methods/index.js";
import type { Feed, HostTensor, RunRequest } from "../runtime/engine.js";
import { bytesOf } from "../runtime/host-tensor.js";
import type { Network } from "../runtime/network.js";
import {
  BATCH,
  type Cut,
  canonical,
  computesAll,
  type FeatureSite,
  graphNames,
  kernelNames,
  type StateDtype,
} from "../tracing/index.js";
import type { Backbone } from "./backbone.js";
import { Coefficients, type SquaredErrors } from "./coefficients.js";

/** What is kept of which features. */
export interface FeatureCache {
  readonly forecaster: Forecaster;
  /** The graph that gives the features out: what is kept are those of its region that are in it. */
  readonly capture: Cut;
  /** Measure what would have been forecast at every full step. A forecaster that adapts needs it. */
  readonly measure: boolean;
}

/** The kinds of step for which a graph runs. */
export const graphKinds = ({ cuts }: Method): [kind: string, cut: Cut][] =>
  Object.entries(cuts).flatMap(([kind, cut]) => (cut === X0 ? [] : [[kind, cut]]));

/** Whether a kind of step computes everything, what a look before it has computed included. */
export function isFull(cut: Cut | typeof X0, { policy }: Method): boolean {
  if (cut === X0 || !computesAll(cut)) return false;
  return !cut.from || policy.looks.some(({ cut: { to } }) => to && canonical(to) === canonical(cut.from));
}

/** What a method keeps: of each region that it captures, once. */
export function cachesOf(method: Method): FeatureCache[] {
  const { forecaster } = method;
  if (!forecaster) return [];
  const captures = new Map<string, Cut>();
  for (const [, cut] of graphKinds(method)) {
    if (!cut.capture) continue;
    const region = canonical(cut.capture);
    if (!captures.has(region)) captures.set(region, graphOf(cut, method));
  }
  const measure = method.measure || forecaster.adapt !== undefined;
  return [...captures.values()].map((capture) => ({ forecaster, capture, measure }));
}

/** A method's cut as a graph of the model: it also says in what features are kept, and how much of those it forecasts. */
export function graphOf(cut: Cut, { forecaster, stateDtype }: Method): Cut {
  if (!forecaster) return cut;
  return {
    ...cut,
    ...(cut.forecast && { state: { history: forecaster.recent, averages: forecaster.averages } }),
    ...(stateDtype && (cut.capture || cut.forecast || cut.tokens || cut.renew) && { stateDtype }),
  };
}

/**
 * That the cuts of a method fit together: who captures a region captures the same of it, what is forecast is captured by
 * another, and where a step begins a look has ended.
 * @throws FemoError E_GRAPH naming the kind of step that does not fit
 */
export function checkCuts(backbone: Backbone, method: Method): void {
  const { policy } = method;
  const cut = (of: Cut) => backbone.cut(graphOf(of, method));
  const names = (sites: readonly FeatureSite[]): string => sites.map(({ name }) => name).join(", ");
  const captured = new Map<string, readonly FeatureSite[]>();
  const kinds = graphKinds(method);
  for (const [kind, step] of kinds) {
    if (!step.capture) continue;
    const own = cut(step).captured;
    const known = captured.get(canonical(step.capture)) ?? own;
    captured.set(canonical(step.capture), known);
    if (canonical(known) === canonical(own)) continue;
    throw misfit(kind, `expected it to capture what others do of the region, ${names(known)}, found ${names(own)}`);
  }
  for (const { cut: look, of } of policy.looks) {
    if (lookedAt(backbone, look, of) === undefined)
      throw new FemoError("E_GRAPH", `a look reads ${JSON.stringify(of)}, which its graph does not give`);
  }
  const before = [...policy.looks.map((look) => look.cut), ...kinds.map(([, step]) => step)].map(cut);
  const ends = new Set(before.flatMap(({ end, leaves }) => [...end, ...leaves]));
  const regions = [...captured.values()].map((sites) => new Set(sites.map(({ name }) => name)));
  for (const [kind, step] of kinds) {
    const { begin, forecasts, chosen, renewed, takes } = cut(step);
    const missing = [...begin, ...takes].find((name) => !ends.has(name));
    if (missing) throw misfit(kind, `it begins with ${missing}, at which no look ends, and which no step leaves`);
    if (chosen.length > 0 && !method.tokens) throw misfit(kind, "it computes tokens, and the method says not how many");
    const kept = [...forecasts, ...renewed];
    if (kept.length === 0) continue;
    if (!method.forecaster) throw misfit(kind, "it forecasts, and the method has no forecaster");
    if (regions.some((known) => kept.every(({ name }) => known.has(name)))) continue;
    throw misfit(kind, `it forecasts or renews ${names(kept)}, which no kind of step captures together`);
  }
  if (Object.values(method.cuts).includes(X0) && !method.forecaster) {
    throw new FemoError("E_GRAPH", "the method forecasts x0, and has no forecaster");
  }
}

/** Which output of a look's graph it reads; undefined if the graph does not give it. */
export function lookedAt(backbone: Backbone, look: Cut, of: Look["of"]): string | undefined {
  const { network, captured } = backbone.cut(look);
  const first = captured[0] && graphNames.feature(captured[0].name);
  if (of === "captured") return first;
  const name = "mark" in of ? graphNames.mark(of.mark) : look.to && graphNames.stream(look.to, of.stream);
  return network.outputs.find((output) => output.name === name)?.name;
}

const misfit = (kind: string, words: string): FemoError => new FemoError("E_GRAPH", `kind of step "${kind}": ${words}`);

/** What a full step taught. */
export interface Learned {
  /** How far forecasts would have been off, unless nothing was measured or nothing could have been forecast. */
  readonly squares: SquaredErrors | undefined;
  /** Time in the runtime. */
  readonly durationMs: number;
}

/** One run of every kernel that a full step is followed by, in their order. */
interface Kernel {
  readonly network: Network;
  readonly measure: boolean;
  readonly update: boolean;
}

/** The networks that move the state of a feature. A forecaster that adapts is measured before its averages move. */
export function kernelsOf(backbone: Backbone, { forecaster, measure, capture }: FeatureCache): readonly Kernel[] {
  const { history, averages } = forecaster;
  const { stateDtype } = capture;
  const kernel = (work: { measure: boolean; update: boolean }): Kernel[] =>
    work.measure || work.update
      ? [{ network: backbone.kernel({ history, averages, ...(stateDtype && { stateDtype }), ...work }), ...work }]
      : [];
  const update = averages > 0;
  return forecaster.adapt
    ? [...kernel({ measure, update: false }), ...kernel({ measure: false, update })]
    : kernel({ measure, update });
}

/** Floating-point operations of what is done with the features after a step that captures them. */
export function kernelFlops(backbone: Backbone, cache: FeatureCache, bindings: Bindings): number {
  const kernels = kernelsOf(backbone, cache);
  return backbone.cut(cache.capture).captured.reduce((sum, feature) => {
    const sizes = { batch: bindings[BATCH] as number, elements: bindDim(feature.elements, bindings) };
    return sum + kernels.reduce((part, { network }) => part + network.flops(sizes), 0);
  }, 0);
}

/**
 * The features of some images that go through the same steps: their state, which stays with the engine, and the
 * coefficients that move it. It says what a step's run needs beyond the model's own inputs.
 *
 * Nothing is copied: a full step writes each true feature into the slot of the one that falls out of the history, and
 * the averages of one feature are written where those of the feature before it were.
 */
export class FeatureState {
  readonly #backbone: Backbone;
  readonly #prefix: string;
  readonly #cache: FeatureCache;
  readonly #features: readonly FeatureSite[];
  readonly #kernels: readonly Kernel[];
  readonly #bindings: Bindings;
  /** Under which name each feature's averages are held, and by elements the buffer into which the next ones go. */
  readonly #averages: string[];
  readonly #spare: Map<number, string>;
  /** Full steps so far. */
  #seen = 0;
  #coefficients: Coefficients;

  private constructor(
    backbone: Backbone,
    prefix: string,
    cache: FeatureCache,
    { bindings, coefficients }: { bindings: Bindings; coefficients: Coefficients },
  ) {
    this.#backbone = backbone;
    this.#prefix = prefix;
    this.#cache = cache;
    this.#features = backbone.cut(cache.capture).captured;
    this.#kernels = kernelsOf(backbone, cache);
    this.#bindings = bindings;
    this.#coefficients = coefficients;
    this.#averages = this.#features.map(({ name }) => this.#name(`averages:${name}`));
    this.#spare = new Map(
      this.#features.map(({ elements }) => {
        const size = bindDim(elements, bindings);
        return [size, this.#spareName(size)];
      }),
    );
  }

  /**
   * A state of nothing but zeros.
   * @param prefix of the names under which the engine holds it
   * @param images which image each sample belongs to
   * @param sizes of the images
   */
  static async start(
    backbone: Backbone,
    prefix: string,
    cache: FeatureCache,
    images: readonly number[],
    sizes: Bindings = {},
  ): Promise<FeatureState> {
    const coefficients = Coefficients.start(cache.forecaster, backbone.cut(cache.capture).captured.length, images);
    const bindings = { ...sizes, [BATCH]: images.length };
    const state = new FeatureState(backbone, prefix, cache, { bindings, coefficients });
    await state.#orFree(backbone.sessions.engine.holdZeros(state.#buffers(), state.#dtype));
    return state;
  }

  /** Bytes that the engine holds: the state, and the buffers into which the next full step writes. */
  get bytes(): number {
    const elements = Object.values(this.#buffers()).reduce((sum, dims) => sum + sizeOf(dims), 0);
    return bytesOf(this.#dtype) * elements;
  }

  get #dtype(): StateDtype {
    return this.#cache.capture.stateDtype ?? "float32";
  }

  /** See `kernelFlops`. */
  get kernelFlops(): number {
    return kernelFlops(this.#backbone, this.#cache, this.#bindings);
  }

  /**
   * Some of the samples as a state of their own; this one stays as it is.
   * @param prefix of the names under which the engine holds it
   */
  async select(prefix: string, rows: readonly number[]): Promise<FeatureState> {
    const part = new FeatureState(this.#backbone, prefix, this.#cache, {
      bindings: { ...this.#bindings, [BATCH]: rows.length },
      coefficients: this.#coefficients.select(rows),
    });
    part.#seen = this.#seen;
    part.#averages.splice(0, part.#averages.length, ...this.#averages.map((name) => this.#nameIn(part, name)));
    for (const [elements, name] of this.#spare) part.#spare.set(elements, this.#nameIn(part, name));
    const taken = Object.keys(this.#buffers()).map((name) => [this.#nameIn(part, name), { from: name, rows }]);
    await part.#orFree(this.#backbone.sessions.engine.take(Object.fromEntries(taken)));
    return part;
  }

  /** What fails leaves nothing with the engine. */
  async #orFree(work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (error) {
      await this.free().catch(() => {}); // an engine that is closed holds nothing
      throw error;
    }
  }

  /** Whether all of these are kept. */
  has(features: readonly FeatureSite[]): boolean {
    return features.every(({ name }) => this.#features.some((feature) => feature.name === name));
  }

  /** What a full step leaves with the engine, the true features, and under which names. */
  capture(): Record<string, string> {
    return Object.fromEntries(
      this.#features.map(({ name }, i) => [graphNames.feature(name), this.#slot(i, this.#seen)]),
    );
  }

  /** What a step leaves that replaces the newest of some features, and under which names. */
  renew(renewed: readonly FeatureSite[]): Record<string, string> {
    return Object.fromEntries(
      renewed.map(({ name }) => [graphNames.feature(name), this.#slot(this.#indexOf(name), this.#seen - 1)]),
    );
  }

  /** Feeds of a step that computes chosen tokens of some features: the newest of each. */
  newest(chosen: readonly FeatureSite[]): Record<string, Feed> {
    return Object.fromEntries(
      chosen.map(({ name }) => [graphNames.history(name, 0), this.#row(this.#indexOf(name), this.#seen - 1)]),
    );
  }

  /** After a full step: measures the forecasts it would have had, adapts to them, and moves the averages. */
  async learn(step: FullStep): Promise<Learned> {
    const coefficients = this.#coefficients;
    coefficients.expect(step.position);
    const { adapt } = this.#cache.forecaster;
    const [first, second] = this.#kernels;
    const early = adapt ? undefined : coefficients.update(step);
    const results = first ? await first.network.runEach(this.#kernelRuns(first, early)) : [];
    const squares = this.#cache.measure
      ? coefficients.measure(results.map(({ outputs }) => outputs[kernelNames.gram] as HostTensor))
      : undefined;
    if (adapt) {
      const late = coefficients.update(step);
      if (second) results.push(...(await second.network.runEach(this.#kernelRuns(second, late))));
    }
    this.#seen++;
    return { squares, durationMs: results.reduce((sum, { durationMs }) => sum + durationMs, 0) };
  }

  /**
   * Feeds of a forecast step, F^ = c S.
   * @param forecasts the features that its graph forecasts, some of those that are kept
   */
  combine(position: number, forecasts: readonly FeatureSite[]): Record<string, Feed> {
    const kept = forecasts.map(({ name }) => this.#indexOf(name));
    const feeds: Record<string, Feed> = { [graphNames.combine]: this.#coefficients.combine(position, kept) };
    for (const i of kept) {
      const { name } = this.#features[i] as FeatureSite;
      for (let age = 0; age < this.#cache.forecaster.recent; age++) {
        feeds[graphNames.history(name, age)] = this.#row(i, this.#seen - 1 - age);
      }
      if (this.#cache.forecaster.averages > 0) feeds[graphNames.averages(name)] = { held: this.#averages[i] as string };
    }
    return feeds;
  }

  /** The momentum coefficients in force, if the forecaster has one. */
  beta(): ReturnType<Coefficients["beta"]> {
    return this.#coefficients.beta();
  }

  async free(): Promise<void> {
    await this.#backbone.sessions.engine.free(Object.keys(this.#buffers()));
  }

  /** One run of a kernel for each feature. */
  #kernelRuns({ measure, update }: Kernel, updates: readonly HostTensor[] | undefined): RunRequest[] {
    return this.#features.map(({ elements }, i) => {
      const feeds: Record<string, Feed> = { [kernelNames.feature]: this.#row(i, this.#seen) };
      for (let age = 0; age < this.#cache.forecaster.history; age++) {
        feeds[kernelNames.history(age)] = this.#row(i, this.#seen - 1 - age);
      }
      const old = this.#averages[i] as string;
      if (this.#cache.forecaster.averages > 0) feeds[kernelNames.averages] = { held: old };
      const fetch = measure ? [kernelNames.gram] : [];
      if (!update || !updates) return { feeds, fetch };
      feeds[kernelNames.update] = updates[i] as HostTensor;
      const size = bindDim(elements, this.#bindings);
      const next = this.#spare.get(size) as string;
      this.#averages[i] = next;
      this.#spare.set(size, old);
      return { feeds, fetch, hold: { [kernelNames.nextAverages]: next } };
    });
  }

  #indexOf(feature: string): number {
    return this.#features.findIndex(({ name }) => name === feature);
  }

  /** Slots of the history: one more than it is long if the oldest is read while the newest is there. */
  get #slots(): number {
    return this.#cache.forecaster.history + (this.#kernels.length > 0 ? 1 : 0);
  }

  /** The name of the feature that a full step saw, counted from 0; before 0 lie zeros. */
  #slot(feature: number, seen: number): string {
    const slot = (seen + this.#slots) % this.#slots;
    return this.#name(`history:${this.#features[feature]?.name}:${slot}`);
  }

  /** The same as a row of S. */
  #row(feature: number, seen: number): Feed {
    const { elements } = this.#features[feature] as FeatureSite;
    return { held: this.#slot(feature, seen), dims: [this.#samples, 1, bindDim(elements, this.#bindings)] };
  }

  /** All that the engine holds, by name. */
  #buffers(): Record<string, number[]> {
    const { averages } = this.#cache.forecaster;
    const buffers: Record<string, number[]> = {};
    for (const [i, { name, shape, elements }] of this.#features.entries()) {
      for (let slot = 0; slot < this.#slots; slot++) buffers[this.#slot(i, slot)] = bindShape(shape, this.#bindings);
      if (averages === 0) continue;
      const size = bindDim(elements, this.#bindings);
      buffers[this.#name(`averages:${name}`)] = [this.#samples, averages, size];
      buffers[this.#spareName(size)] = [this.#samples, averages, size];
    }
    return buffers;
  }

  get #samples(): number {
    return this.#bindings[BATCH] as number;
  }

  #spareName(elements: number): string {
    return this.#name(`averages:spare:${elements}`);
  }

  #name(part: string): string {
    return `${this.#prefix}:${part}`;
  }

  /** The name that another state has for what this one calls so. */
  #nameIn(other: FeatureState, name: string): string {
    return other.#prefix + name.slice(this.#prefix.length);
  }
}
