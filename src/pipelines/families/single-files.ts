import { isOriginalFlux } from "../../models/flux-original.js";
import { isOriginalUnet } from "../../models/unet-original.js";
import type { Checkpoint } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { ClassNames } from "../labels.js";
import { PartFiles } from "../part-files.js";
import type { PretrainedOptions } from "../pretrained-options.js";
import type { FamilyContext } from "./context.js";
import { noClasses } from "./no-classes.js";

export { PartFiles };

/** Options of what a single file of FLUX or Stable Diffusion may lack. */
const partOptions = ["vae", "textEncoder", "textEncoder2", "tokenizer", "tokenizer2"] as const;

/** The classes that a file's model draws. @throws FemoError E_OPTION if it draws prompts */
export const fileClasses = async (file: Checkpoint): Promise<ClassNames> =>
  isOriginalFlux(file) || isOriginalUnet(file) ? noClasses(file) : (await import("./dit-file.js")).ditFileClasses(file);

/** A model in a single file, which may lack other parts. */
export interface FileFamily {
  /** The options of `fromPretrained` that it takes and others do not. */
  readonly options: readonly (keyof PretrainedOptions)[];
  open(name: string, file: Checkpoint, parts: PartFiles, context: FamilyContext): Promise<PipelineParts>;
}

/**
 * The family that a file's model is of, by the names of its tensors: FLUX.1, Stable Diffusion, or a DiT, of the original
 * releases.
 * @param heads of a DiT whose width is not one of the paper's
 */
export function fileFamilyOf(file: Checkpoint, heads: number | undefined): FileFamily {
  if (isOriginalFlux(file))
    return { options: partOptions, open: async (...of) => (await import("./flux-file.js")).fluxFromFile(...of) };
  if (isOriginalUnet(file))
    return {
      options: partOptions,
      open: async (...of) => (await import("./stable-diffusion-file.js")).stableDiffusionFromFile(...of),
    };
  return {
    options: ["vae", "heads"],
    open: async (...of) => (await import("./dit-file.js")).ditFromFile(heads, ...of),
  };
}
