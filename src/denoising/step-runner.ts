import { bindShape } from "../graph/index.js";
import { type Look, X0 } from "../methods/index.js";
import type { Feed, HostTensor } from "../runtime/engine.js";
import { BATCH, type Cut, graphNames } from "../tracing/index.js";
import { allFinite, concat, rowsOf } from "./arrays.js";
import { type MeasuredForecast, measuredForecast } from "./coefficients.js";
import type { Cohort, ImageRun } from "./cohort.js";
import type { DenoisedState } from "./denoised-state.js";
import { graphKinds, graphOf, isFull, lookedAt } from "./feature-state.js";
import { chosenTokens, cutFlops } from "./flops.js";
import { guide } from "./guidance.js";
import type { Denoising, StepRecord } from "./records.js";

/** What something took. */
export interface Cost {
  /** Time in the runtime, milliseconds. */
  readonly durationMs: number;
  readonly flops: number;
}

/** What a step gave, before the sampler moves. */
export interface Ran extends Cost, Pick<StepRecord, "forecastError" | "beta"> {
  /** Of each image, what the network says of it, its rows guided. */
  readonly outputs: readonly Float32Array[];
  /** Of each image, whether all that the network gave is a finite number. */
  readonly finite: readonly boolean[];
  /** Of each image, how far off the forecast of a full step would have been. */
  readonly errors?: readonly MeasuredForecast[];
}

/** Runs what a step of some images consists of, and learns from it; decisions and samplers are not its business. */
export class StepRunner {
  readonly #run: Denoising;
  readonly #channels: number;
  /** What kinds of step take of earlier ones, features aside. */
  readonly #wanted: ReadonlySet<string>;

  constructor(run: Denoising) {
    this.#run = run;
    this.#channels = Number(run.backbone.sample.shape[0]);
    const kinds = graphKinds(run.method).map(([, cut]) => run.backbone.cut(graphOf(cut, run.method)));
    this.#wanted = new Set(kinds.flatMap(({ begin, takes }) => [...begin, ...takes]));
  }

  /** Runs a look: what it saw of each row. */
  async look(
    { cut, of }: Look,
    cohort: Cohort,
    step: number,
  ): Promise<Cost & { readonly rows: readonly Float32Array[] }> {
    const { backbone } = this.#run;
    const name = lookedAt(backbone, cut, of) as string; // checkCuts has seen to it
    const { outputs, durationMs } = await backbone.run(cut, {
      feeds: this.#feeds(cut, cohort, step),
      fetch: [name],
      hold: cohort.leave(backbone.cut(cut), this.#wanted),
    });
    const rows = rowsOf(outputs[name] as HostTensor, cohort.rows.length);
    return { rows, durationMs, flops: this.#flops(cut, cohort, step) };
  }

  /** Runs a step of one kind. @param cut the kind's */
  run(cut: Cut | typeof X0, cohort: Cohort, step: number): Promise<Ran> {
    return cut === X0 ? Promise.resolve(this.#forecastX0(cohort, step)) : this.#runCut(cut, cohort, step);
  }

  /** Runs a step's graph and learns from it. */
  async #runCut(cut: Cut, cohort: Cohort, step: number): Promise<Ran> {
    const { method, sampler, backbone } = this.#run;
    const features = cut.capture && method.forecaster ? cohort.captured(cut.capture) : undefined;
    const graph = this.#graph(cut);
    const traced = backbone.cut(graph);
    const renewed = traced.renewed.length > 0 ? cohort.having(traced.renewed).renew(traced.renewed) : {};
    const hold = { ...features?.capture(), ...renewed, ...cohort.leave(traced, this.#wanted) };
    const result = await backbone.run(graph, {
      feeds: this.#feeds(cut, cohort, step),
      fetch: [graphNames.output, ...this.#observed(graph, hold)],
      hold,
    });
    const fullStep = { position: sampler.position(step), differences: step > method.firstDifference };
    const learned = await features?.learn(fullStep);
    const rows = rowsOf(result.outputs[graphNames.output] as HostTensor, cohort.rows.length);
    const outputs = cohort.images.map((image) => this.#guided(image, cohort, rows));
    this.#show(result.outputs, outputs, cohort, step);
    const finite = cohort.images.map((image) =>
      cohort.rowsOf([image]).every((row) => allFinite(rows[row] as Float32Array)),
    );
    const ran = {
      outputs,
      finite,
      durationMs: result.durationMs + (learned?.durationMs ?? 0),
      flops: this.#flops(cut, cohort, step) + (features?.kernelFlops ?? 0),
    };
    if (isFull(cut, method) && cohort.images.some(({ x0 }) => x0)) return this.#learnX0(cohort, step, ran);
    const squares = learned?.squares;
    const beta = features?.beta();
    return {
      ...ran,
      ...(squares && {
        forecastError: measuredForecast(squares, [...cohort.rows.keys()]),
        errors: cohort.images.map((image) => measuredForecast(squares, cohort.rowsOf([image]))),
      }),
      ...(beta && { beta }),
    };
  }

  /** The outputs that an observer is shown. */
  #observed(graph: Cut, hold: Readonly<Record<string, string>>): string[] {
    if (!this.#run.observe) return [];
    const names = this.#run.backbone.cut(graph).network.outputs.map(({ name }) => name);
    return names.filter((name) => name !== graphNames.output && !(name in hold));
  }

  /** @param guided of each image */
  #show(
    outputs: Readonly<Record<string, HostTensor>>,
    guided: readonly Float32Array[],
    cohort: Cohort,
    step: number,
  ): void {
    const { observe, sampler } = this.#run;
    for (const [i, image] of observe ? cohort.images.entries() : []) {
      const shown = Object.entries(outputs).map(([name, tensor]) => {
        const rows = rowsOf(tensor, cohort.rows.length);
        const own = cohort.rowsOf([image]).map((row) => rows[row] as Float32Array);
        return [name, { dims: tensor.dims.slice(1), rows: own }];
      });
      const sampled = { sampler, latent: image.state.latent, output: guided[i] as Float32Array };
      observe?.(image.index, step, Object.fromEntries(shown), sampled);
    }
  }

  /** Takes in what x0 a full step has shown. */
  #learnX0(cohort: Cohort, step: number, ran: Ran): Ran {
    const { method, sampler } = this.#run;
    const start = performance.now();
    const fullStep = { position: sampler.position(step), differences: step > method.firstDifference };
    const squares = cohort.images.map(({ x0, state }, i) =>
      x0?.learn(sampler.denoised(step, state.latent, ran.outputs[i] as Float32Array), fullStep),
    );
    const betas = cohort.images.flatMap(({ x0 }) => x0?.beta() ?? []);
    const known = squares.every((square) => square !== undefined)
      ? [squares.map((square) => square[0]?.[0] ?? 0)]
      : undefined;
    return {
      ...ran,
      durationMs: ran.durationMs + performance.now() - start,
      flops: ran.flops + cohort.images.reduce((sum, { x0 }) => sum + (x0?.learnFlops ?? 0), 0),
      ...(known && {
        forecastError: measuredForecast(known, [...cohort.images.keys()]),
        errors: cohort.images.map((_, i) => measuredForecast(known, [i])),
      }),
      ...(betas.length > 0 && {
        beta: {
          mean: betas.reduce((sum, { mean }) => sum + mean, 0) / betas.length,
          min: Math.min(...betas.map(({ min }) => min)),
          max: Math.max(...betas.map(({ max }) => max)),
        },
      }),
    };
  }

  /** A step without a graph. */
  #forecastX0(cohort: Cohort, step: number): Ran {
    const start = performance.now();
    const outputs = cohort.images.map((image) => this.#outputForX0(image, step));
    return {
      outputs,
      finite: outputs.map(allFinite),
      durationMs: performance.now() - start,
      flops: cohort.images.reduce((sum, { x0 }) => sum + (x0?.forecastFlops ?? 0), 0),
    };
  }

  /** What the network would have to say of an image for x0 to be its forecast. */
  #outputForX0({ x0, state }: ImageRun, step: number): Float32Array {
    const { sampler } = this.#run;
    return sampler.modelOutput(step, state.latent, (x0 as DenoisedState).forecast(sampler.position(step)));
  }

  /** Guides what the network gave for an image. */
  #guided(image: ImageRun, cohort: Cohort, rows: readonly Float32Array[]): Float32Array {
    const { guidanceChannels, guidanceRescale } = this.#run;
    const own = cohort.rowsOf([image]).map((row) => rows[row] as Float32Array);
    const size = image.state.latent.length;
    const guided = guidanceChannels === "all" ? size : (guidanceChannels * size) / this.#channels;
    return guide(image.rows, own, size, guided, guidanceRescale);
  }

  /** Feeds of a run: the sample, what timestep, condition and size give, and what earlier steps have left. */
  #feeds(cut: Cut, cohort: Cohort, step: number): Record<string, Feed> {
    const { backbone, conditioning, sampler, method } = this.#run;
    const { sample } = backbone;
    const graph = this.#graph(cut);
    const { inputs, begin, takes, forecasts, chosen } = backbone.cut(graph);
    const rows = cohort.rows.map(({ row }) => row.condition);
    const feeds = conditioning.feeds(graph, step, rows, cohort.sizes);
    if (inputs.has(sample.name)) {
      const scale = sampler.inputScale(step);
      const latents = concat(cohort.rows.map(({ image }) => image.state.latent));
      const dims = [rows.length, ...bindShape(sample.shape, cohort.sizes)];
      feeds[sample.name] = { dtype: "float32", dims, data: scale === 1 ? latents : latents.map((x) => x * scale) };
    }
    for (const { name, shape, varies } of backbone.model.inputs) {
      if (varies !== "image" || !inputs.has(name)) continue;
      const data = concat(cohort.rows.map(({ image }) => image.given[name] as Float32Array));
      feeds[name] = { dtype: "float32", dims: [rows.length, ...bindShape(shape, cohort.sizes)], data };
    }
    for (const name of [...begin, ...takes]) if (inputs.has(name)) feeds[name] = { held: cohort.left(name) };
    if (forecasts.length > 0) {
      Object.assign(feeds, cohort.having(forecasts).combine(sampler.position(step), forecasts));
    }
    if (chosen.length > 0 && method.tokens) {
      const { ageWeight, bonus } = method.tokens;
      Object.assign(feeds, cohort.having(chosen).newest(chosen));
      const counts = BigInt64Array.from(chosenTokens(method, chosen, this.#at(step), cohort.sizes), BigInt);
      feeds[graphNames.tokens] = { dtype: "int64", dims: [counts.length], data: counts };
      feeds[graphNames.scoring] = { dtype: "float32", dims: [2], data: Float32Array.of(ageWeight, bonus) };
    }
    return feeds;
  }

  #flops(cut: Cut, cohort: Cohort, step: number): number {
    const { backbone, method } = this.#run;
    return cutFlops(backbone, method, cut, this.#at(step), { ...cohort.sizes, [BATCH]: cohort.rows.length });
  }

  /** A cut with the shape of the state that it forecasts from. */
  #graph(cut: Cut): Cut {
    return graphOf(cut, this.#run.method);
  }

  #at(step: number) {
    return { step, numSteps: this.#run.sampler.timesteps.length };
  }
}
