import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import { type Checkpoint, openCheckpoint } from "./checkpoint.js";
import { type FolderSource, subfolder } from "./folder-source.js";
import { parseJson } from "./json.js";
import { describeValue, listSome, quote } from "./text.js";
import { findWeights, firstThatExists, variantByComponent } from "./weight-files.js";

/** The part of a pipeline that a component's entry in `model_index.json` names: [library, class]. */
export type ComponentClass = readonly [library: string, className: string];

/** What `model_index.json` says. */
export interface ModelIndex {
  /** Class of the pipeline, such as "DiTPipeline". */
  readonly className: string;
  /** By name, such as "transformer"; null if the pipeline can have it and this one does not. */
  readonly components: Readonly<Record<string, ComponentClass | null>>;
  /** Its other entries, options of the pipeline's class, as they stand there. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Names of the classes of a class-conditional model; synonyms are separated by ", ". */
  readonly id2label?: Readonly<Record<number, string>>;
}

/** A component with weights. */
export interface ModelComponent {
  /** Its `config.json`, not checked further. */
  readonly config: unknown;
  readonly checkpoint: Checkpoint;
}

/** Which of several weight files to take. */
export interface ComponentOptions {
  /**
   * The infix of the file name, such as "fp16" for `diffusion_pytorch_model.fp16.safetensors`. Default: weights without
   * one, or the only variant there is.
   */
  readonly variant?: string | undefined;
}

export interface ModelFolderOptions extends ComponentOptions {
  /** What reports call the model. Default: the last part of the folder's name. */
  readonly model?: string | undefined;
}

/** A pipeline in the layout of diffusers: `model_index.json` and a folder for each component. */
export interface ModelFolder extends ModelIndex {
  /** Path or address, for messages. */
  readonly name: string;
  /** What reports call the model. */
  readonly model: string;
  /**
   * The config of a component, with or without weights, such as the scheduler's.
   * @throws FemoError E_CONFIG if the pipeline has no such component, or the file is malformed; E_FILE if it is missing
   */
  config(component: string): Promise<unknown>;
  /**
   * Config and weights of a component.
   * @throws FemoError as `config`, and E_FILE, E_WEIGHT if the weights are missing or malformed
   */
  component(component: string): Promise<ModelComponent>;
  /**
   * The folder of a component, such as a tokenizer's.
   * @throws FemoError E_CONFIG if the pipeline has no such component
   */
  part(component: string): FolderSource;
  /**
   * The content of a file of what was measured on the model, one of `MEASURED_FILES`, not checked further; undefined if
   * there is none.
   * @throws FemoError E_CONFIG if it is no JSON
   */
  measured(file: string): Promise<unknown>;
}

/**
 * Files of what was measured on the model, if it was: what requests best go by; of caching the settings of each method,
 * where full steps are placed, what to trade for speed, and solvers of few steps.
 */
export const MEASURED_FILES = {
  defaults: "defaults.json",
  presets: "presets.json",
  schedules: "schedules.json",
  qualities: "qualities.json",
  solvers: "solvers.json",
} as const;

/**
 * Opens a pipeline folder in the layout of diffusers; weights are not touched before they are asked for. A variant is
 * taken of the components that have it, and what has no variant of the others.
 * @throws FemoError E_FILE if it has no `model_index.json` or no component of the variant, E_CONFIG if the index is
 *   malformed, E_OPTION if the variant is no name
 */
export async function openModelFolder(folder: FolderSource, options: ModelFolderOptions = {}): Promise<ModelFolder> {
  if (!(await folder.exists("model_index.json"))) {
    const advice = (await folder.exists("config.json"))
      ? "It has a config.json: it may be one component of a pipeline. Give the folder above it."
      : "Check the path, and that the download is complete.";
    throw new FemoError(
      "E_FILE",
      `${folder.name}: expected a folder in the layout of diffusers, found no model_index.json in it. ${advice}`,
    );
  }
  const index = await readModelIndex(folder);
  const present = Object.keys(index.components).filter((name) => index.components[name]);
  const variantOf = await variantByComponent(folder, present, options.variant);
  const check = (component: string): void => {
    const entry = Object.hasOwn(index.components, component) ? index.components[component] : undefined;
    if (entry) return;
    throw new FemoError(
      "E_CONFIG",
      `${folder.name}/model_index.json: expected a component ${quote(component)}, ` +
        `found ${entry === null ? "null in its place" : "none"}. The ${index.className} has: ${present.join(", ") || "no components"}.`,
    );
  };
  return {
    ...index,
    name: folder.name,
    model: options.model ?? folder.name.split(/[\\/]/).findLast(Boolean) ?? folder.name,
    async config(component) {
      check(component);
      return readConfig(folder, component);
    },
    async component(component) {
      check(component);
      return openComponent(folder, component, { variant: variantOf(component) });
    },
    part(component) {
      check(component);
      return subfolder(folder, component);
    },
    async measured(file) {
      if (!(await folder.exists(file))) return undefined;
      return parseJson(await folder.readText(file), `${folder.name}/${file}`);
    },
  };
}

/**
 * Opens one component, such as an autoencoder that is published alone.
 * @param component where it lies in the folder; "." if the folder is the component
 * @throws FemoError as `ModelFolder.component`, and E_OPTION if the variant is no name
 */
export async function openComponent(
  folder: FolderSource,
  component: string,
  options: ComponentOptions = {},
): Promise<ModelComponent> {
  const config = await readConfig(folder, component);
  return { config, checkpoint: await openCheckpoint(folder, await findWeights(folder, component, options.variant)) };
}

// model_index.json: "_..." are notes of diffusers, pairs are components, anything else is an option of the pipeline.
const indexSchema = z.looseObject({
  _class_name: z.string().check(z.minLength(1)),
  id2label: z.optional(z.record(z.string().check(z.regex(/^\d{1,9}$/, "expected a class number")), z.string())),
});
const componentSchema = z.tuple([z.string(), z.string()]);

async function readModelIndex(folder: FolderSource): Promise<ModelIndex> {
  const file = `${folder.name}/model_index.json`;
  const parsed = safeParse(indexSchema, parseJson(await folder.readText("model_index.json"), file));
  if (!parsed.success) {
    const issues = listSome(schemaIssues(parsed.error, "the file"));
    throw new FemoError("E_CONFIG", `${file}: malformed. Repair it, or download it again:${issues}`);
  }
  const { _class_name: className, id2label, ...rest } = parsed.data;
  const components: [string, ComponentClass | null][] = [];
  const options: [string, unknown][] = [];
  for (const [name, value] of Object.entries(rest)) {
    if (name.startsWith("_")) continue;
    if (!Array.isArray(value)) {
      options.push([name, value]);
      continue;
    }
    if (value.length === 2 && value.every((item) => item === null)) components.push([name, null]);
    else {
      const pair = safeParse(componentSchema, value);
      if (!pair.success) {
        throw new FemoError(
          "E_CONFIG",
          `${file}: ${quote(name)}: expected [library, class] or [null, null], ` +
            `found [${value.slice(0, 4).map(describeValue).join(", ")}]. Repair it, or download it again.`,
        );
      }
      components.push([name, pair.data]);
    }
  }
  return {
    className,
    components: Object.fromEntries(components),
    options: Object.fromEntries(options),
    ...(id2label && { id2label: Object.fromEntries(Object.entries(id2label)) as Record<number, string> }),
  };
}

/** Models say `config.json`; schedulers, tokenizers and image processors have files of their own names. */
export const CONFIG_FILES = [
  "config.json",
  "scheduler_config.json",
  "tokenizer_config.json",
  "preprocessor_config.json",
];

async function readConfig(folder: FolderSource, component: string): Promise<unknown> {
  const paths = CONFIG_FILES.map((file) => `${component}/${file}`);
  const path = await firstThatExists(folder, paths);
  if (path === undefined) {
    throw new FemoError(
      "E_FILE",
      `${folder.name}: found no config of ${quote(component)}. Check that the download is complete. Looked for:${listSome(paths)}`,
    );
  }
  return parseJson(await folder.readText(path), `${folder.name}/${path}`);
}
