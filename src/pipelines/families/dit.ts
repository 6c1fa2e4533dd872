import { Backbone, guidanceRows } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import { type CacheFacts, cacheLevels } from "../../methods/index.js";
import { autoencoderKLConfigFromJson } from "../../models/autoencoder-kl.js";
import { type DiTConfig, dit, ditConfigFromJson } from "../../models/dit.js";
import { type SchedulerConfig, schedulerFromConfig } from "../../samplers/index.js";
import { modelLinears, once } from "../../tracing/index.js";
import type { Checkpoint, ModelComponent, ModelFolder } from "../../weights/index.js";
import { LatentDecoder } from "../decoder.js";
import type { Condition, Family, PipelineParts } from "../family.js";
import { allClasses, type ClassNames, classId, className, labelNames } from "../labels.js";
import { subjectTypes } from "../subject-options.js";
import { cachingOf } from "./caching.js";
import { checkChannels, dtypeOf, type FamilyContext } from "./context.js";

/**
 * A `DiTPipeline` in diffusers' layout.
 * @throws FemoError E_CONFIG, E_FILE or E_WEIGHT if the folder is not a DiT pipeline in full
 */
export async function ditFromFolder(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts> {
  const { config, checkpoint } = await folder.component("transformer");
  return ditParts(
    {
      name: folder.model,
      config: ditConfigFromJson(config, `${folder.name}/transformer/config.json`),
      checkpoint,
      vae: folder.components.vae ? await folder.component("vae") : undefined,
      scheduler: schedulerFromConfig(await folder.config("scheduler")),
      names: labelNames(folder.id2label),
      caching: (levels) => cachingOf(folder, levels),
    },
    context,
  );
}

/** The classes of a `DiTPipeline`, from its configs. @throws FemoError E_CONFIG, E_FILE */
export async function ditClasses(folder: ModelFolder): Promise<ClassNames> {
  const config = ditConfigFromJson(await folder.config("transformer"), `${folder.name}/transformer/config.json`);
  return allClasses(config.numEmbedsAdaNorm, labelNames(folder.id2label));
}

export interface DiTSource {
  readonly name: string;
  readonly config: DiTConfig;
  readonly checkpoint: Checkpoint;
  readonly vae: ModelComponent | undefined;
  readonly scheduler: SchedulerConfig;
  /** Of some classes. */
  readonly names: ClassNames;
  caching(levels: readonly string[]): Promise<CacheFacts>;
}

export async function ditParts(source: DiTSource, context: FamilyContext): Promise<PipelineParts> {
  const { name, config, checkpoint, vae, scheduler } = source;
  const { sessions, keep, lora } = context;
  if (lora.length > 0) throw new FemoError("E_OPTION", `lora: only of FLUX; ${name} is a DiT`);
  const decoder =
    vae && new LatentDecoder(autoencoderKLConfigFromJson(vae.config, `${name}: vae`), vae.checkpoint, sessions);
  checkChannels(name, config.inChannels, decoder);
  const model = dit(config);
  const linears = once(() => modelLinears(model));
  const { dtype, notes } = await dtypeOf(context, checkpoint, linears);
  return {
    name,
    family: classFamily(config, source.names),
    backbone: await new Backbone(model, checkpoint, sessions).in(dtype, keep, linears),
    decoder,
    scheduler,
    notes,
    caching: await source.caching(cacheLevels(model)),
  };
}

/** Requests name classes; the label after the last stands for none. */
function classFamily(config: DiTConfig, known: ClassNames): Family {
  const count = config.numEmbedsAdaNorm;
  const classes = allClasses(count, known);
  const defaults = { numInferenceSteps: 50, guidanceScale: 1.5 };
  return {
    subjectOption: "classLabels",
    options: { classLabels: subjectTypes.classLabels },
    examples: [...classes.keys()].slice(0, 10),
    defaults,
    drawing({ classLabels, guidanceScale = defaults.guidanceScale }) {
      const subjects = [classLabels as string | number].flat().map((label) => {
        const id = classId(label, classes);
        const name = className(id, classes);
        const rows = guidanceRows<Condition>(guidanceScale, id, count);
        return { rows, about: { title: name, classId: id, className: name } };
      });
      return { subjects, sizes: {}, settings: {}, notes: [] };
    },
    async encode(conditions) {
      const data = BigInt64Array.from(conditions, (label) => BigInt(label as number));
      return { feeds: { class_label: { dtype: "int64", dims: [conditions.length], data } }, notes: [] };
    },
    classes,
  };
}
