import type { Keep, ModelDtype } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import type { Sessions } from "../../runtime/sessions.js";
import type { LoraAdapter } from "../../weights/index.js";
import type { LatentDecoder } from "../decoder.js";

/** What a family is opened with. */
export interface FamilyContext {
  readonly sessions: Sessions;
  /** In what the transformer and large text encoders are to compute. */
  readonly dtype: ModelDtype;
  /** What is to be merged into the weights. */
  readonly lora: readonly LoraAdapter[];
  /** For weights that are computed, such as those in fewer bits. */
  readonly keep: Keep;
}

/** @throws FemoError E_CONFIG if what the model draws cannot be shown: colours or grey, unless it is decoded */
export function checkChannels(name: string, channels: number, decoder: LatentDecoder | undefined): void {
  if (decoder ? channels === decoder.latentChannels : [1, 3].includes(channels)) return;
  const drawn = decoder
    ? `the vae decodes ${decoder.latentChannels} channels`
    : "without a vae a model must draw 3 channels (colours) or 1 (grey)";
  throw new FemoError("E_CONFIG", `${name}: ${drawn}, found ${channels} in the transformer`);
}
