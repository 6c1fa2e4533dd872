import { type Command, InvalidArgumentError } from "commander";
import {
  type CacheMethod,
  cacheMethods,
  type Device,
  DiffusionPipeline,
  devices,
  type LoraOption,
  type ModelDtype,
  modelDtypes,
  type SubjectOptions,
} from "../pipelines/index.js";
import {
  multistepSolver,
  namedSamplers,
  type SamplerOption,
  seedAfter,
  type TimestepSpacing,
  timestepSpacings,
} from "../samplers/index.js";
import { bytesText } from "../studies/table.js";
import { parseJson } from "../weights/json.js";
import { textOf } from "./files.js";
import { progressLine } from "./progress.js";

/** What every command gets from the program. */
export interface CommandContext {
  readonly version: string;
  readonly signal: AbortSignal;
}

/** Which model. */
export interface ModelFlags {
  model: string;
  revision?: string;
  cacheDir?: string;
}

/** Options of every command that draws, and those that only `generate` and `compare` have. */
export interface CommonFlags extends ModelFlags {
  variant?: string;
  numImagesPerPrompt?: number;
  steps?: number;
  guidanceScale?: number;
  guidanceChannels?: "all" | number;
  seed: number | bigint;
  sampler?: SamplerOption;
  timestepSpacing?: TimestepSpacing;
  batchSize?: number;
  decodeTileSize?: number;
  prompt2?: string;
  negativePrompt?: string;
  negativePrompt2?: string;
  trueCfgScale?: number;
  height?: number;
  width?: number;
  maxSequenceLength?: number;
  guidanceRescale?: number;
  clipSkip?: number;
  vae?: string;
  textEncoder?: string;
  textEncoder2?: string;
  tokenizer?: string;
  tokenizer2?: string;
  lora?: LoraOption[];
  heads?: number;
  dtype?: ModelDtype;
  device?: Device;
  threads?: number;
  out?: string;
  force?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export const methodNames = cacheMethods.join(", ");

/** Adds the options that say which model. @param chosen the one that is taken if none is said */
export const addModel = (command: Command, chosen = "avatars-flux"): Command =>
  command
    .option("--model <name>", "embedded model, folder, file, or owner/name[@revision] on the Hub", chosen)
    .option("--revision <name>", "branch, tag or commit of a model on the Hub (default: main)")
    .option("--cache-dir <path>", "folder of downloads (default: that of huggingface_hub)");

/** The model that the flags name, downloaded if need be. */
export async function openPipeline(flags: CommonFlags, signal: AbortSignal): Promise<DiffusionPipeline> {
  const { model, variant, revision, cacheDir, device, dtype, threads, quiet } = flags;
  const { vae, heads, textEncoder, textEncoder2, tokenizer, tokenizer2, lora } = flags;
  const progress = progressLine(quiet);
  try {
    return await DiffusionPipeline.fromPretrained(model, {
      ...{ variant, revision, cacheDir, device, dtype, threads },
      ...{ vae, heads, textEncoder, textEncoder2, tokenizer, tokenizer2, lora },
      signal,
      onProgress: ({ file, bytesDone, bytesTotal }) =>
        progress.show(
          `downloading ${file}, ${bytesText(bytesDone)} of ${bytesText(bytesTotal)}`,
          bytesDone / bytesTotal,
        ),
      onConvert: ({ tensorsDone, tensorsTotal, bytesDone, bytesTotal }) =>
        progress.show(
          `making ${bytesText(bytesTotal)} of weights, ${tensorsDone} of ${tensorsTotal}`,
          bytesDone / bytesTotal,
        ),
    });
  } finally {
    progress.clear();
  }
}

/**
 * Adds the options that both `generate` and `compare` have.
 * @param chosen what numbers are that the user does not give, in words
 */
export const addCommon = (command: Command, chosen: { images: string; batchSize: string }): Command =>
  addDrawing(command, chosen)
    .option("--decode-tile-size <n>", "decode latents in tiles of so many latent pixels (default: whole)", integer)
    .option("--force", "overwrite files")
    .option("--json", "print the report as JSON");

/** Adds the options of every command that draws. */
export function addDrawing(command: Command, chosen: { images: string; batchSize: string }): Command {
  return addModel(command)
    .option("--variant <name>", 'infix of the weight files to take, such as "fp16"')
    .option(
      "--device <name>",
      `what computes: ${devices.filter((device) => device !== "wasm").join(", ")}; see femo doctor`,
      "auto",
    )
    .option(
      "--vae <name>",
      "autoencoder for a model file that has none: folder, owner/name on the Hub, of FLUX also a file",
    )
    .option("--text-encoder <name>", "CLIP for a FLUX file: file, folder, or owner/name on the Hub")
    .option("--text-encoder2 <name>", "T5 for a FLUX file: file, folder, or owner/name on the Hub")
    .option("--tokenizer <name>", "tokenizers for a FLUX file: folder or owner/name of a pipeline, or of CLIP's alone")
    .option("--tokenizer2 <name>", "T5's tokenizer, if it is elsewhere")
    .option("--lora <path[:weight]>", "LoRA file to merge into FLUX; may come several times", loraOption)
    .option("--heads <n>", "attention heads of a model file whose width does not tell them", integer)
    .option(
      "--dtype <name>",
      `what linear layers compute in: ${modelDtypes.join(", ")} (default: the first that fits into memory, of large models int8 where it is faster)`,
      modelDtype,
    )
    .option("--num-images-per-prompt <n>", `images of each class or prompt (default: ${chosen.images})`, imageCount)
    .option("--steps <n>", "sampler steps (default: the model's own, or as many as a solver has)", integer)
    .option(
      "--guidance-scale <x>",
      "classifier-free guidance of classes, 1 is off; of FLUX what it takes as input",
      number,
    )
    .option("--negative-prompt <text>", "what guidance by prompts leads away from")
    .option("--true-cfg-scale <x>", "strength of that guidance; 1 is off", number)
    .option("--prompt2 <text>", "what the second text encoder reads (default: the prompt)")
    .option("--negative-prompt2 <text>", "the same for the negative prompt")
    .option("--height <n>", "of images with prompts, in pixels", integer)
    .option("--width <n>", "of images with prompts, in pixels", integer)
    .option("--max-sequence-length <n>", "tokens that the second text encoder of FLUX reads", integer)
    .option("--guidance-rescale <x>", "of Stable Diffusion: how much of the spread of guidance is taken back", number)
    .option("--clip-skip <n>", "of Stable Diffusion: layers of CLIP left out at its end", integer)
    .option("--guidance-channels <n>", 'guide so many channels, or "all"', (value) =>
      value === "all" ? value : integer(value),
    )
    .option("--seed <n>", "seed of the first image, of 64 bits as in PyTorch; the next has the next", seed, 0)
    .option(
      "--sampler <name>",
      `${namedSamplers.join(", ")}; or JSON, or a JSON file, of a name and settings or a solver (default: the model's own)`,
      sampler,
    )
    .option("--timestep-spacing <name>", `which timesteps to visit: ${timestepSpacings.join(", ")}`, timestepSpacing)
    .option("--batch-size <n>", `images computed together (default: ${chosen.batchSize})`, integer)
    .option("--threads <n>", "CPU threads (default: one per physical core)", integer)
    .option("--quiet", "print nothing but errors");
}

const promptFlags = [
  "prompt2",
  "negativePrompt",
  "negativePrompt2",
  "trueCfgScale",
  "height",
  "width",
  "maxSequenceLength",
  "guidanceRescale",
  "clipSkip",
] as const satisfies readonly (keyof CommonFlags & keyof SubjectOptions)[];

/** What a study is to draw. */
export interface SubjectFlags {
  classes?: string[];
  prompt?: string[];
}

/** Adds the options that say what a study is to draw. @param chosen what that is by default, in words */
export const addSubjects = (command: Command, chosen: string): Command =>
  command
    .option("--classes <list>", `classes by name or number (default: ${chosen})`, listOf(String))
    .option("--prompt <text...>", `prompts (default: ${chosen})`);

export const subjectsOf = ({ classes, prompt }: SubjectFlags): SubjectOptions => ({
  ...(classes && { classLabels: classes }),
  ...(prompt && { prompt }),
});

/** The common flags as options of the library. */
export const requestOf = (flags: CommonFlags) => ({
  ...(flags.steps !== undefined && { numInferenceSteps: flags.steps }),
  seed: flags.seed,
  ...(flags.numImagesPerPrompt !== undefined && { numImagesPerPrompt: flags.numImagesPerPrompt }),
  ...(flags.batchSize !== undefined && { batchSize: flags.batchSize }),
  ...Object.fromEntries(promptFlags.flatMap((name) => (flags[name] === undefined ? [] : [[name, flags[name]]]))),
  ...(flags.guidanceScale !== undefined && { guidanceScale: flags.guidanceScale }),
  ...(flags.guidanceChannels !== undefined && { guidanceChannels: flags.guidanceChannels }),
  ...(flags.sampler !== undefined && { sampler: flags.sampler }),
  ...(flags.timestepSpacing !== undefined && { timestepSpacing: flags.timestepSpacing }),
  ...(flags.decodeTileSize !== undefined && { decodeTileSize: flags.decodeTileSize }),
});

export function number(value: string): number {
  const parsed = Number(value);
  if (value.trim() === "" || !Number.isFinite(parsed)) throw new InvalidArgumentError("Expected a number.");
  return parsed;
}

export function integer(value: string): number {
  const parsed = number(value);
  if (!Number.isSafeInteger(parsed)) throw new InvalidArgumentError("Expected a whole number.");
  return parsed;
}

function imageCount(value: string): number {
  const count = integer(value);
  if (count < 1 || count > 100_000) throw new InvalidArgumentError("Expected a whole number from 1 to 100000.");
  return count;
}

/** Decimal digits, of any number of bits. */
function seed(value: string): number | bigint {
  const parsed = /^[+-]?\d+$/.test(value) ? BigInt(value.replace("+", "")) : undefined;
  if (parsed === undefined || parsed < -(2n ** 63n) || parsed >= 2n ** 64n) {
    throw new InvalidArgumentError("Expected a whole number from -2^63 to 2^64 - 1.");
  }
  return seedAfter(parsed, 0);
}

/** A caching method, however it is spelt: adaptedFemo, adapted-femo. */
export const cacheMethod = (value: string): CacheMethod => member(cacheMethods, value);

/** A sampler, however it is spelt: dpm-solver++, dpmsolver++; or one with settings, or a solver, as JSON or in a file. */
function sampler(value: string): SamplerOption {
  if (value.trimStart().startsWith("{"))
    return samplerData(parseJson(value, "--sampler", "E_OPTION", "Repair it."), "--sampler", "E_OPTION");
  if (!value.endsWith(".json")) return member(namedSamplers, value);
  return samplerData(parseJson(textOf(value), value, "E_CONFIG", "Repair it."), value, "E_CONFIG");
}

/** Which samplers there are, and with which settings, depends on the model: requests are checked by it. */
function samplerData(json: unknown, where: string, code: "E_OPTION" | "E_CONFIG"): SamplerOption {
  const name = typeof json === "object" && json !== null ? (json as { sampler?: unknown }).sampler : undefined;
  const isNamed = typeof name === "string" && name !== "multistep";
  return isNamed ? (json as SamplerOption) : multistepSolver(json, where, code);
}

/** "style.safetensors" or "style.safetensors:0.8", after those before it. */
function loraOption(value: string, before: LoraOption[] = []): LoraOption[] {
  const [, path = value, weight] = /^(.+):([+-]?(?:\d+\.?\d*|\.\d+))$/.exec(value) ?? [];
  return [...before, { path, ...(weight !== undefined && { weight: Number(weight) }) }];
}

const timestepSpacing = (value: string): TimestepSpacing => member(timestepSpacings, value);

const modelDtype = (value: string): ModelDtype => member(modelDtypes, value);

/** "0 1 5" or "0,1,5" */
export const listOf =
  <T>(parse: (value: string) => T) =>
  (value: string): T[] =>
    value
      .split(/[\s,]+/)
      .filter(Boolean)
      .map(parse);

function member<T extends string>(names: readonly T[], value: string): T {
  const plain = (name: string): string => name.toLowerCase().replaceAll(/[-_]/g, "");
  const found = names.find((name) => plain(name) === plain(value));
  if (!found) throw new InvalidArgumentError(`Expected one of ${names.join(", ")}.`);
  return found;
}
