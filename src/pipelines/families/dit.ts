import { Backbone, guidanceRows, type Keep, type ModelDtype } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import {
  type CacheFacts,
  cacheLevels,
  defaultPresets,
  presetsFromJson,
  qualitiesFromJson,
  schedulesFromJson,
} from "../../methods/index.js";
import { autoencoderKLConfigFromJson } from "../../models/autoencoder-kl.js";
import { type DiTConfig, dit, ditConfigFromJson } from "../../models/dit.js";
import type { OriginalDiT } from "../../models/dit-original.js";
import type { Sessions } from "../../runtime/sessions.js";
import { ditScheduler, type SchedulerConfig, schedulerFromConfig } from "../../samplers/index.js";
import { type Checkpoint, MEASURED_FILES, type ModelComponent, type ModelFolder } from "../../weights/index.js";
import { LatentDecoder } from "../decoder.js";
import type { Family, PipelineParts } from "../family.js";
import { allClasses, type ClassNames, classId, className, labelNames } from "../labels.js";
import { isNumber, isString } from "../option-types.js";

/** What a family is opened with. */
export interface FamilyContext {
  readonly sessions: Sessions;
  /** In what the transformer is to compute. */
  readonly dtype: ModelDtype;
  /** For weights that are computed, such as those in fewer bits. */
  readonly keep: Keep;
}

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

/**
 * A model of the original DiT release, which is sampled as that release does unless asked otherwise: DDIM with its own
 * respacing. (Its guidance leaves the last channel alone: `guidanceChannels: 3`.)
 * @param name of the model, for reports
 * @throws FemoError E_CONFIG or E_WEIGHT if the autoencoder is not one, or not this model's
 */
export function ditFromOriginal(
  name: string,
  model: OriginalDiT,
  vae: ModelComponent,
  context: FamilyContext,
): Promise<PipelineParts> {
  const caching = async (levels: readonly string[]) => nothingMeasured(levels);
  const own = { name, ...model, vae, scheduler: ditScheduler, names: new Map(), caching };
  return ditParts(own, context);
}

interface DiTSource {
  readonly name: string;
  readonly config: DiTConfig;
  readonly checkpoint: Checkpoint;
  readonly vae: ModelComponent | undefined;
  readonly scheduler: SchedulerConfig;
  /** Of some classes. */
  readonly names: ClassNames;
  caching(levels: readonly string[]): Promise<CacheFacts>;
}

async function ditParts(source: DiTSource, { sessions, dtype, keep }: FamilyContext): Promise<PipelineParts> {
  const { name, config, checkpoint, vae, scheduler } = source;
  const decoder =
    vae && new LatentDecoder(autoencoderKLConfigFromJson(vae.config, `${name}: vae`), vae.checkpoint, sessions);
  checkChannels(name, config.inChannels, decoder);
  const model = dit(config);
  return {
    name,
    family: classFamily(config, source.names),
    backbone: await new Backbone(model, checkpoint, sessions).in(dtype, keep),
    decoder,
    scheduler,
    caching: await source.caching(cacheLevels(model)),
  };
}

/** @throws FemoError E_CONFIG if what the model draws cannot be shown: colours or grey, unless it is decoded */
export function checkChannels(name: string, channels: number, decoder: LatentDecoder | undefined): void {
  if (decoder ? channels === decoder.latentChannels : [1, 3].includes(channels)) return;
  const drawn = decoder
    ? `the vae decodes ${decoder.latentChannels} channels`
    : "without a vae a model must draw 3 channels (colours) or 1 (grey)";
  throw new FemoError("E_CONFIG", `${name}: ${drawn}, found ${channels} in the transformer`);
}

/** The methods' own settings. */
const nothingMeasured = (levels: readonly string[]): CacheFacts => ({
  levels,
  presets: defaultPresets,
  schedules: [],
  qualities: {},
});

/** What was measured on the model, if it came with that. */
async function cachingOf(folder: ModelFolder, levels: readonly string[]): Promise<CacheFacts> {
  const facts: { -readonly [Fact in keyof CacheFacts]: CacheFacts[Fact] } = nothingMeasured(levels);
  const named = (file: string): string => `${folder.name}/${file}`;
  const { presets, schedules, qualities } = MEASURED_FILES;
  const [own, placed, traded] = await Promise.all([presets, schedules, qualities].map((file) => folder.measured(file)));
  if (own !== undefined) facts.presets = presetsFromJson(own, defaultPresets, levels, named(presets));
  if (placed !== undefined) facts.schedules = schedulesFromJson(placed, named(schedules));
  if (traded !== undefined) facts.qualities = qualitiesFromJson(traded, facts.presets, levels, named(qualities));
  return facts;
}

/** Requests name classes; the label after the last stands for none. */
function classFamily(config: DiTConfig, known: ClassNames): Family {
  const count = config.numEmbedsAdaNorm;
  const classes = allClasses(count, known);
  return {
    subjectOption: "classLabels",
    options: {
      classLabels: [
        (value) => [value].flat().every((label) => isString(label) || isNumber(label)),
        "a class name or number, or a list of them",
      ],
    },
    subjects: ({ classLabels }) =>
      [classLabels].flat().map((label) => {
        const id = classId(label, classes);
        return { condition: id, about: { classId: id, className: className(id, classes) } };
      }),
    defaults: { numInferenceSteps: 50, guidanceScale: 1.5 },
    rows: ({ condition }, guidanceScale) => guidanceRows(guidanceScale, condition, count),
    async encode(conditions) {
      const data = BigInt64Array.from(conditions, (label) => BigInt(label));
      return { class_label: { dtype: "int64", dims: [conditions.length], data } };
    },
    sizes: {},
    classes,
  };
}
