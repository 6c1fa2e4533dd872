import { FemoError } from "../../errors.js";
import { isOriginalFlux } from "../../models/flux-original.js";
import { isOriginalUnet } from "../../models/unet-original.js";
import type { Checkpoint, ModelFolder } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { ClassNames } from "../labels.js";
import type { PartFiles } from "../part-files.js";
import type { PretrainedOptions } from "../pretrained-options.js";
import type { FamilyContext } from "./context.js";
import { ditClasses, ditFileClasses, ditFromFile, ditFromFolder } from "./dit.js";
import { fluxFromFile, fluxFromFolder, fluxPartOptions } from "./flux.js";
import {
  stableDiffusionFromFile,
  stableDiffusionFromFolder,
  stableDiffusionPartOptions,
  stableDiffusionPipelines,
} from "./stable-diffusion.js";

interface FamilyDefinition {
  open(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts>;
  /** The classes that it draws, from its configs alone. */
  classes(folder: ModelFolder): Promise<ClassNames>;
}

/** The families there are, by the class of the pipeline that a model's index names. */
const families: Readonly<Record<string, FamilyDefinition>> = {
  DiTPipeline: { open: ditFromFolder, classes: ditClasses },
  FluxPipeline: { open: fluxFromFolder, classes: noClasses },
  ...Object.fromEntries(
    stableDiffusionPipelines.map((name) => [name, { open: stableDiffusionFromFolder, classes: noClasses }]),
  ),
};

/**
 * The family that a model in diffusers' layout belongs to.
 * @throws FemoError E_CONFIG if there is none
 */
export function familyOf(folder: ModelFolder): FamilyDefinition {
  const family = Object.hasOwn(families, folder.className) ? families[folder.className] : undefined;
  if (family) return family;
  const known = Object.keys(families).join(", ");
  throw new FemoError(
    "E_CONFIG",
    `${folder.name}: expected a pipeline of the class ${known}, found ${folder.className}`,
  );
}

/** The classes that a file's model draws. @throws FemoError E_OPTION if it draws prompts */
export const fileClasses = async (file: Checkpoint): Promise<ClassNames> =>
  isOriginalFlux(file) || isOriginalUnet(file) ? noClasses(file) : ditFileClasses(file);

/** @throws FemoError E_OPTION */
async function noClasses({ name }: { readonly name: string }): Promise<never> {
  throw new FemoError("E_OPTION", `${name}: expected a model that draws classes, found one that draws prompts`);
}

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
  if (isOriginalFlux(file)) return { options: fluxPartOptions, open: fluxFromFile };
  if (isOriginalUnet(file)) return { options: stableDiffusionPartOptions, open: stableDiffusionFromFile };
  return { options: ["vae", "heads"], open: (...of) => ditFromFile(heads, ...of) };
}

export type { FamilyContext } from "./context.js";
