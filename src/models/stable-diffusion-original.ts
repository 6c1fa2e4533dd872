import { FemoError } from "../errors.js";
import type { Checkpoint, ModelComponent } from "../weights/index.js";
import { isOriginalAutoencoderKL, originalAutoencoderKL } from "./autoencoder-kl-original.js";
import { isOriginalOpenClip, originalOpenClip } from "./open-clip-original.js";
import { type Prediction, type PredictionOptions, predictionOf } from "./stable-diffusion-prediction.js";
import {
  isOriginalClipText,
  isOriginalClipWithProjection,
  type OriginalClipTextOptions,
  originalClipText,
} from "./text-encoders-original.js";
import {
  type OriginalUnet,
  type OriginalUnetOptions,
  originalUnet,
  originalUnetTensors,
  type UnetShape,
  unetShapeOf,
} from "./unet-original.js";

/** Releases whose files differ in more than sizes. */
export const stableDiffusionFamilies = ["sd1", "sd2", "sdxl", "sdxl-refiner", "ssd-1b", "vega"] as const;
export type StableDiffusionFamily = (typeof stableDiffusionFamilies)[number];

export interface OriginalStableDiffusionOptions extends OriginalUnetOptions, PredictionOptions {
  /** Default: told by the width of the text that the U-Net attends to. */
  family?: StableDiffusionFamily;
}

/** What a single file of Stable Diffusion has and is. */
export interface OriginalStableDiffusion {
  readonly family: StableDiffusionFamily;
  /** True if the U-Net also takes a mask and the latent of the masked image. */
  readonly inpainting: boolean;
  /** What it was distilled to, as far as files say: few steps without guidance, or few with an embedded guidance scale. */
  readonly distilled: "turbo" | "lcm" | undefined;
  readonly unet: OriginalUnet;
  /** As diffusers' `scheduler_config.json`, of the family, with what the file says of the training. */
  readonly scheduler: Readonly<Record<string, unknown>>;
  /** Height and width of the images that its autoencoder is tiled by, in pixels. */
  readonly imageSize: number;
}

/** A part that a file may have, or that may be in a file of its own. */
export interface OriginalFilePart {
  /** True if a file has it. */
  isThere(file: Checkpoint): boolean;
  /** Config and weights. @throws FemoError E_WEIGHT or E_CONFIG if the file does not have it, whole */
  open(file: Checkpoint): Promise<ModelComponent>;
}

/** What a pipeline of a family has beside U-Net and scheduler. */
export interface StableDiffusionParts {
  readonly vae: OriginalFilePart;
  readonly textEncoder?: OriginalFilePart;
  readonly textEncoder2?: OriginalFilePart;
  /** Ids that prompts are padded with, which no file of weights says: the end of the text, or "!". */
  readonly padTokenId?: number;
  readonly padTokenId2?: number;
}

const CONTEXTS: ReadonlyMap<number, StableDiffusionFamily> = new Map([
  [768, "sd1"],
  [1024, "sd2"],
  [1280, "sdxl-refiner"],
  [2048, "sdxl"],
]);

const isXl = (family: StableDiffusionFamily): boolean => family !== "sd1" && family !== "sd2";

/**
 * The family of a single file, what it predicts, its schedule, and its U-Net by diffusers' names. For the other parts see
 * `stableDiffusionParts`.
 * @throws FemoError E_WEIGHT if the file has no such U-Net, one of another kind, or was trained with another
 *   preconditioning (EDM); E_CONFIG if its sizes are not known; E_FILE if it cannot be read
 */
export async function originalStableDiffusion(
  file: Checkpoint,
  options: OriginalStableDiffusionOptions = {},
): Promise<OriginalStableDiffusion> {
  const own = originalUnetTensors(file);
  const shape = unetShapeOf(own);
  const family = options.family ?? familyOf(file, shape);
  checkAddition(file, family, shape);
  const metadata = await file.metadata();
  const inpainting = shape.inChannels !== shape.outChannels;
  const lastLayer = `output_blocks.${shape.up.flat().length - 1}`;
  const facts = { isSd2: family === "sd2", inpainting, lastLayer };
  const prediction = await predictionOf(file, own, metadata, facts, options);
  const isTurbo = metadata.get("modelspec.architecture")?.startsWith("stable-diffusion-xl-turbo") === true;
  const distilled = shape.timeCond !== undefined ? "lcm" : isTurbo ? "turbo" : undefined;
  const imageSize =
    isXl(family) && !isTurbo ? 1024 : family === "sd2" && prediction.type === "v_prediction" ? 768 : 512;
  const { config, checkpoint } = await originalUnet(file, options);
  const upcast = family === "sd2" && { upcast_attention: true }; // in float16 the scores of the published one overflow
  return {
    ...{ family, inpainting, distilled, imageSize },
    unet: { config: { ...config, ...upcast, sample_size: imageSize / 8 }, checkpoint },
    scheduler: schedulerOf(family, distilled, inpainting, prediction),
  };
}

function familyOf(file: Checkpoint, { context, mid, up }: UnetShape): StableDiffusionFamily {
  const family = CONTEXTS.get(context);
  if (family === "sdxl" && mid === undefined) return up[1]?.[0] === 2 ? "ssd-1b" : "vega";
  if (family) return family;
  throw new FemoError(
    "E_CONFIG",
    `${file.name}: expected a U-Net that attends to text of ${[...CONTEXTS.keys()].join(", ")} channels, found one of ` +
      `${context}. Pass family, one of ${stableDiffusionFamilies.join(", ")}.`,
  );
}

/** XL is told sizes and crops and others are not; those that are, take an image's embedding. */
function checkAddition(file: Checkpoint, family: StableDiffusionFamily, { addition }: UnetShape): void {
  if (isXl(family) === (addition !== undefined)) return;
  const found = isXl(family)
    ? "one that is not told the size of the image"
    : "one that takes the embedding of an image (Stable unCLIP)";
  throw new FemoError("E_WEIGHT", `${file.name}: expected a U-Net of ${family}, found ${found}. Take another file.`);
}

const TRAINING = {
  ...{ num_train_timesteps: 1000, beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" },
  ...{ trained_betas: null, clip_sample: false, set_alpha_to_one: false, steps_offset: 1 },
};

/** The scheduler of the published pipelines. */
function schedulerOf(
  family: StableDiffusionFamily,
  distilled: OriginalStableDiffusion["distilled"],
  inpainting: boolean,
  { type, zeroSnr }: Prediction,
): Readonly<Record<string, unknown>> {
  const training = {
    ...TRAINING,
    prediction_type: type,
    ...(zeroSnr && { rescale_betas_zero_snr: true }),
  };
  // Only steps that start at the end of the schedule meet its zero.
  const spacing = { timestep_spacing: zeroSnr ? "trailing" : "leading" };
  if (distilled === "lcm")
    return { _class_name: "LCMScheduler", ...training, original_inference_steps: 50, ...spacing };
  if (distilled === "turbo") {
    return { _class_name: "EulerAncestralDiscreteScheduler", ...training, timestep_spacing: "trailing" };
  }
  if (isXl(family)) {
    const sigmas = { use_karras_sigmas: false, interpolation_type: "linear" };
    return { _class_name: "EulerDiscreteScheduler", ...training, ...sigmas, ...spacing };
  }
  const isPndm = family === "sd1" ? !inpainting : type === "epsilon";
  if (isPndm && !zeroSnr) return { _class_name: "PNDMScheduler", ...training, skip_prk_steps: true, ...spacing };
  return { _class_name: "DDIMScheduler", ...training, ...spacing };
}

/** Options of what is opened beside the U-Net. */
export interface StableDiffusionPartOptions {
  /** As `OriginalStableDiffusion.imageSize` says. */
  readonly imageSize?: number;
  /** Groups of the autoencoder's norms. Default: 32 */
  readonly normNumGroups?: number;
  /** Of the text encoders. */
  readonly textEncoder?: OriginalClipTextOptions;
  readonly textEncoder2?: OriginalClipTextOptions;
}

const END_OF_TEXT = 49_407;
const EXCLAMATION = 0;

/** The parts of a family, each in a file of all or in one of its own. */
export function stableDiffusionParts(
  family: StableDiffusionFamily,
  options: StableDiffusionPartOptions = {},
): StableDiffusionParts {
  const { imageSize, normNumGroups, textEncoder = {}, textEncoder2 = {} } = options;
  const sizes = {
    ...(imageSize !== undefined && { sampleSize: imageSize }),
    ...(normNumGroups !== undefined && { normNumGroups }),
  };
  const vae: OriginalFilePart = {
    isThere: isOriginalAutoencoderKL,
    open: async (file) => originalAutoencoderKL(file, { ...sizes, of: isXl(family) ? "sdxl" : "sd" }),
  };
  const clip: OriginalFilePart = {
    isThere: isOriginalClipText,
    open: (file) => originalClipText(file, textEncoder),
  };
  const bigG: OriginalFilePart = {
    isThere: (file) => isOriginalOpenClip(file) || isOriginalClipWithProjection(file),
    open: (file) =>
      isOriginalOpenClip(file)
        ? originalOpenClip(file, { ...textEncoder2, use: "pooled" })
        : originalClipText(file, { ...textEncoder2, openClip: true }),
  };
  switch (family) {
    case "sd1":
      return { vae, textEncoder: clip, padTokenId: END_OF_TEXT };
    case "sd2": {
      const open: OriginalFilePart["open"] = (file) => originalOpenClip(file, { ...textEncoder, use: "penultimate" });
      return { vae, textEncoder: { isThere: isOriginalOpenClip, open }, padTokenId: EXCLAMATION };
    }
    case "sdxl-refiner":
      return { vae, textEncoder2: bigG, padTokenId2: EXCLAMATION };
    default:
      return { vae, textEncoder: clip, textEncoder2: bigG, padTokenId: END_OF_TEXT, padTokenId2: EXCLAMATION };
  }
}
