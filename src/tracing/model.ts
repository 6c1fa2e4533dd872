import type { Bindings, Shape, Value } from "../graph/index.js";
import type { Trace } from "./trace.js";

/**
 * How often an input changes. "step": with every step, the noisy sample. "timestep": the same for all images of a step,
 * known before the first. "condition": one for each distinct prompt or class, known before the first step. "image": one for
 * each image, known before the first step. "size": it follows from the sizes alone.
 */
export type Rate = "step" | "timestep" | "condition" | "image" | "size";

/** An input as a model declares it: nothing outside the model needs to know its name. */
export interface Input {
  readonly name: string;
  readonly dtype: "float32" | "int64";
  /** Of one row, without the batch in front; sizes that requests choose are symbols. Of "size" inputs: all of it. */
  readonly shape: Shape;
  readonly varies: Rate;
  /** The value of a "size" input. */
  readonly values?: (sizes: Bindings) => Float32Array;
}

/** A model, written once over symbolic tensors, and traced as each cut says. */
export interface Model {
  /** One of them varies with the step: the sample. */
  readonly inputs: readonly Input[];
  /** Of one row, without the batch in front. It begins as the sample does: channels, if more, come behind. */
  readonly output: Shape;
  /** The levels at which its features can be kept, from the finest to the coarsest. */
  readonly levels: readonly string[];
  /** Its chains of blocks in their order, and how many each has. */
  readonly chains: Readonly<Record<string, number>>;
  /** Tensors that may be given out (`Trace.mark`) and that methods know by name: "modulated", what enters the first attention,
   * or where the timestep first meets the image; "first block", what that changes. */
  readonly marks: readonly string[];
  build(trace: Trace): Value;
  /**
   * The same for images of one size, for graphs that must know it. Absent of a model that has one size.
   * @param sizes of every symbol of its inputs
   */
  sized?(sizes: Bindings): Model;
}

/** The input that changes with every step. */
export const sampleOf = (model: Model): Input => model.inputs.find(({ varies }) => varies === "step") as Input;
