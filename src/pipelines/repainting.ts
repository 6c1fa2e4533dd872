import type { Model } from "../tracing/index.js";

/** Inputs of a network that was trained to repaint, by the names that diffusers gives them. */
export const repaintingInputs = { mask: "mask", masked: "masked_image_latents" } as const;

/** It was trained to repaint, and needs to be told what. */
export const repaints = ({ inputs }: Pick<Model, "inputs">): boolean =>
  inputs.some(({ name }) => name === repaintingInputs.masked);
