import type { Value } from "../graph/index.js";

/** Activations by the names that transformers has for them. */
export const activations = {
  gelu: (x: Value): Value => x.gelu("none"),
  gelu_new: (x: Value): Value => x.gelu("tanh"),
  gelu_pytorch_tanh: (x: Value): Value => x.gelu("tanh"),
  quick_gelu: (x: Value): Value => x.quickGelu(),
  relu: (x: Value): Value => x.relu(),
  silu: (x: Value): Value => x.silu(),
} as const;

export type ActivationName = keyof typeof activations;

export const activationNames = Object.keys(activations) as ActivationName[];
