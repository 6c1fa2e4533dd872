import { FemoError } from "../../errors.js";
import { originalDiT } from "../../models/dit-original.js";
import { ditScheduler } from "../../samplers/index.js";
import type { Checkpoint } from "../../weights/index.js";
import type { PipelineParts } from "../family.js";
import { allClasses, type ClassNames } from "../labels.js";
import type { PartFiles } from "../part-files.js";
import { nothingMeasured } from "./caching.js";
import type { FamilyContext } from "./context.js";
import { ditParts } from "./dit.js";

/**
 * A model of the original DiT release, which is sampled as that release does unless asked otherwise: DDIM with its own
 * respacing. (Its guidance leaves the last channel alone: `guidanceChannels: 3`.)
 * @param name of the model, for reports
 * @throws FemoError E_CONFIG or E_WEIGHT if the autoencoder is not one, or not this model's
 */
export async function ditFromFile(
  heads: number | undefined,
  name: string,
  file: Checkpoint,
  parts: PartFiles,
  context: FamilyContext,
): Promise<PipelineParts> {
  const model = originalDiT(file, heads === undefined ? {} : { heads });
  const vae = await parts.component("vae", "vae");
  if (!vae) {
    throw new FemoError(
      "E_OPTION",
      `${file.name} draws latents: pass vae, the autoencoder that turns them into images, such as "stabilityai/sd-vae-ft-mse"`,
    );
  }
  const caching = async (levels: readonly string[]) => nothingMeasured(levels);
  const own = { name, ...model, vae, scheduler: ditScheduler, names: new Map(), caching };
  return ditParts(own, context);
}

/** The classes of a file of the original release. @throws FemoError as `originalDiT` */
export const ditFileClasses = (file: Checkpoint): ClassNames =>
  allClasses(originalDiT(file, { heads: 1 }).config.numEmbedsAdaNorm); // the number of heads does not matter here
