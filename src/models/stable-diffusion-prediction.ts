import { FemoError } from "../errors.js";
import type { Checkpoint } from "../weights/index.js";
import { quote } from "../weights/text.js";

export type PredictionType = "epsilon" | "v_prediction" | "sample";

export interface PredictionOptions {
  /** What the model predicts: the noise, or v of it and the image. Default: as the file says or suggests. */
  predictionType?: PredictionType;
  /** Whether it was trained down to no signal at all. Default: as the file says. */
  rescaleBetasZeroSnr?: boolean;
}

export interface Prediction {
  readonly type: PredictionType;
  readonly zeroSnr: boolean;
}

/** What is known of the U-Net. */
export interface PredictionFacts {
  /** Whether it is a Stable Diffusion 2, of which there are two. */
  readonly isSd2: boolean;
  readonly inpainting: boolean;
  /** Its last layer that attends to text, as "output_blocks.11". */
  readonly lastLayer: string;
}

const TYPE = "modelspec.prediction_type";
const ARCHITECTURE = "modelspec.architecture";
const STEP = "global_step";
/** Training steps of Stable Diffusion 2 at 512 pixels, which predicts noise. */
const STEPS_AT_512 = 875_000;
/** How far the biases of a norm near the output of Stable Diffusion 2 spread that predicts noise; of v they do further. */
const SPREAD = 0.09;

/**
 * What a file's model predicts, by the first of these that says it: the user; the header; the marks v_pred and ztsnr, which
 * fine-tunes carry; the name of the architecture; the number of training steps; and for Stable Diffusion 2, whose two
 * models have the same shapes, how the biases of one norm spread, as ComfyUI tells them. Others predict noise.
 * @param own the U-Net's tensors by the release's names
 * @throws FemoError E_WEIGHT if it is preconditioned otherwise (EDM), or the header names another type; E_FILE if it cannot
 *   be read
 */
export async function predictionOf(
  file: Checkpoint,
  own: Checkpoint,
  metadata: ReadonlyMap<string, string>,
  facts: PredictionFacts,
  options: PredictionOptions,
): Promise<Prediction> {
  const has = (mark: string): boolean => file.get(mark) !== undefined || own.get(mark) !== undefined;
  const edm = ["edm_vpred.sigma_max", "edm_mean", "edm_std"].find(has);
  if (edm !== undefined) {
    throw new FemoError(
      "E_WEIGHT",
      `${file.name}: expected a model that predicts noise or v of a discrete schedule, found one with the ` +
        `preconditioning of EDM, by its ${quote(edm)}, which is not supported. Take another file.`,
    );
  }
  const type =
    options.predictionType ??
    inHeader(file, metadata) ??
    (has("v_pred") ? "v_prediction" : undefined) ??
    (facts.isSd2 ? await ofStableDiffusion2(own, metadata, facts) : "epsilon");
  return { type, zeroSnr: options.rescaleBetasZeroSnr ?? (has("ztsnr") && type === "v_prediction") };
}

function inHeader(file: Checkpoint, metadata: ReadonlyMap<string, string>): PredictionType | undefined {
  const said = metadata.get(TYPE)?.trim();
  if (said === undefined || said === "") return undefined;
  if (said === "epsilon") return "epsilon";
  if (said === "v" || said === "v_prediction") return "v_prediction";
  throw new FemoError(
    "E_WEIGHT",
    `${file.name}, header, ${TYPE}: expected epsilon or v, found ${quote(said)}. Pass predictionType if you know it.`,
  );
}

async function ofStableDiffusion2(
  own: Checkpoint,
  metadata: ReadonlyMap<string, string>,
  { inpainting, lastLayer }: PredictionFacts,
): Promise<PredictionType> {
  const architecture = metadata.get(ARCHITECTURE) ?? "";
  if (architecture.startsWith("stable-diffusion-v2-768-v")) return "v_prediction";
  if (/^stable-diffusion-v2-(512|inpainting)/.test(architecture) || inpainting) return "epsilon";
  if (Number(metadata.get(STEP)) === STEPS_AT_512) return "epsilon";
  const values = await own.readTensor(`${lastLayer}.1.transformer_blocks.0.norm1.bias`);
  return spreadOf(values) > SPREAD ? "v_prediction" : "epsilon";
}

/** Standard deviation. */
function spreadOf(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}
