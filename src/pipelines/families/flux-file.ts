import { isOriginalAutoencoderKL, originalAutoencoderKL } from "../../models/autoencoder-kl-original.js";
import { fluxSchedulers, originalFlux } from "../../models/flux-original.js";
import { isOriginalClipText, isOriginalT5, originalClipText, originalT5 } from "../../models/text-encoders-original.js";
import { schedulerFromConfig } from "../../samplers/index.js";
import type { Checkpoint, ModelComponent } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { PartFiles, PartOfFile } from "../part-files.js";
import { nothingMeasured } from "./caching.js";
import type { FamilyContext } from "./context.js";
import { fluxParts } from "./flux.js";

const WORDS = { vae: "autoencoder", textEncoder: "text encoder of CLIP", textEncoder2: "text encoder of T5" } as const;

/**
 * A transformer of the original release's names, in whichever format, with the other parts in files or folders of their
 * own unless it has them too.
 * @throws FemoError E_OPTION if a part is missing, and as those that open them
 */
export async function fluxFromFile(
  name: string,
  file: Checkpoint,
  parts: PartFiles,
  context: FamilyContext,
): Promise<PipelineParts> {
  const { config, checkpoint, scheduler } = await originalFlux(file);
  const part = (
    option: keyof typeof WORDS,
    component: string,
    isThere: PartOfFile["isThere"],
    open: PartOfFile["open"],
  ): Promise<ModelComponent> =>
    parts.componentOr(option, component, {
      ...{ file, part: { isThere, open }, words: WORDS[option], example: "black-forest-labs/FLUX.1-schnell" },
    });
  return fluxParts(
    {
      ...{ name, config, transformer: checkpoint },
      vae: await part("vae", "vae", isOriginalAutoencoderKL, originalAutoencoderKL),
      textEncoder: await part("textEncoder", "text_encoder", isOriginalClipText, originalClipText),
      textEncoder2: await part("textEncoder2", "text_encoder_2", isOriginalT5, originalT5),
      tokenizer: await parts.tokenizer("tokenizer", "tokenizer"),
      tokenizer2: await parts.tokenizer("tokenizer2", "tokenizer_2"),
      scheduler: schedulerFromConfig(fluxSchedulers[scheduler]),
      defaults: {},
      caching: async (levels, published) => nothingMeasured(levels, published),
    },
    context,
    name,
  );
}
