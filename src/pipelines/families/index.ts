import { FemoError } from "../../errors.js";
import type { ModelFolder } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { ClassNames } from "../labels.js";
import type { FamilyContext } from "./context.js";
import { noClasses } from "./no-classes.js";

interface FamilyDefinition {
  open(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts>;
  /** The classes that it draws, from its configs alone. */
  classes(folder: ModelFolder): Promise<ClassNames>;
}

/** Classes of pipelines that have the same parts; they differ in what diffusers' own requests ask for. */
const stableDiffusionPipelines = [
  "StableDiffusionPipeline",
  "StableDiffusionImg2ImgPipeline",
  "StableDiffusionInpaintPipeline",
  "StableDiffusionXLPipeline",
  "StableDiffusionXLImg2ImgPipeline",
  "StableDiffusionXLInpaintPipeline",
  "LatentConsistencyModelPipeline",
] as const;

/** The families there are, by the class of the pipeline that a model's index names. Who opens one loads no other's code. */
const families: Readonly<Record<string, FamilyDefinition>> = {
  DiTPipeline: {
    open: async (...of) => (await import("./dit.js")).ditFromFolder(...of),
    classes: async (folder) => (await import("./dit.js")).ditClasses(folder),
  },
  FluxPipeline: { open: async (...of) => (await import("./flux.js")).fluxFromFolder(...of), classes: noClasses },
  ...Object.fromEntries(
    stableDiffusionPipelines.map((name): [string, FamilyDefinition] => [
      name,
      {
        open: async (...of) => (await import("./stable-diffusion.js")).stableDiffusionFromFolder(...of),
        classes: noClasses,
      },
    ]),
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

export type { FamilyContext } from "./context.js";
