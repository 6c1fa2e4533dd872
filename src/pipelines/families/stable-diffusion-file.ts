import { originalStableDiffusion, stableDiffusionParts } from "../../models/stable-diffusion-original.js";
import { schedulerFromConfig } from "../../samplers/index.js";
import type { Checkpoint, ModelComponent } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { PartFiles } from "../part-files.js";
import { nothingMeasured } from "./caching.js";
import type { FamilyContext } from "./context.js";
import { diffusionParts } from "./stable-diffusion.js";

/**
 * A model in one file of the original release's names, with what it lacks in files or folders of their own.
 * @throws FemoError E_OPTION if a part is missing, and as those that open them
 */
export async function stableDiffusionFromFile(
  name: string,
  file: Checkpoint,
  parts: PartFiles,
  context: FamilyContext,
): Promise<PipelineParts> {
  const { family, unet, scheduler, imageSize } = await originalStableDiffusion(file);
  const original = stableDiffusionParts(family, { imageSize });
  const part = async (option: keyof typeof WORDS, component: string) => {
    const own = original[option];
    return own && parts.componentOr(option, component, { file, part: own, words: WORDS[option] });
  };
  return diffusionParts(
    {
      ...{ name, unet },
      vae: (await part("vae", "vae")) as ModelComponent,
      textEncoder: await part("textEncoder", "text_encoder"),
      textEncoder2: await part("textEncoder2", "text_encoder_2"),
      tokenizer: original.textEncoder && (await parts.tokenizer("tokenizer", "tokenizer")),
      tokenizer2: original.textEncoder2 && (await parts.tokenizer("tokenizer2", "tokenizer_2")),
      scheduler: schedulerFromConfig(scheduler),
      forceZerosForEmptyPrompt: family !== "sd1" && family !== "sd2" && family !== "sdxl-refiner",
      defaults: {},
      caching: async (levels, published) => nothingMeasured(levels, published),
    },
    context,
    name,
  );
}

const WORDS = { vae: "autoencoder", textEncoder: "text encoder", textEncoder2: "second text encoder" } as const;
