import { FemoError } from "../../errors.js";
import type { ModelFolder } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import type { ClassNames } from "../labels.js";
import type { FamilyContext } from "./context.js";
import { ditClasses, ditFromFolder } from "./dit.js";
import { fluxFromFolder } from "./flux.js";

interface FamilyDefinition {
  open(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts>;
  /** The classes that it draws, from its configs alone. */
  classes(folder: ModelFolder): Promise<ClassNames>;
}

/** The families there are, by the class of the pipeline that a model's index names. */
const families: Readonly<Record<string, FamilyDefinition>> = {
  DiTPipeline: { open: ditFromFolder, classes: ditClasses },
  FluxPipeline: { open: fluxFromFolder, classes: noClasses },
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

/** @throws FemoError E_OPTION */
async function noClasses({ name }: ModelFolder): Promise<never> {
  throw new FemoError("E_OPTION", `${name}: expected a model that draws classes, found one that draws prompts`);
}

export type { FamilyContext } from "./context.js";
export { ditFromOriginal } from "./dit.js";
