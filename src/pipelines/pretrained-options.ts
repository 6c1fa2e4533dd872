import { type ModelDtype, modelDtypes } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { type Device, devices } from "../platform/device.js";
import { isToken } from "../platform/hub/token.js";
import type { ConversionProgress, DownloadProgress } from "../platform/platform.js";
import { checkTypes, describe, isAbortSignal, isFunction, type OptionTypes } from "./option-types.js";

/** How to get and to run a model. */
export interface PretrainedOptions {
  /**
   * Which weights to take where a folder or repository has several, by the infix of their files: "fp16" for
   * `diffusion_pytorch_model.fp16.safetensors`. Components without it give what they have. Default: weights without an
   * infix, or the only variant there is.
   */
  variant?: string | undefined;
  /** Of a model on the Hub: a branch, tag or commit, as after the "@" of "owner/name@revision". Default "main". */
  revision?: string | undefined;
  /** Where downloads are kept, in folders as Python's huggingface_hub makes them. Default: that of the environment. */
  cacheDir?: string | undefined;
  /**
   * Of the Hub, for models that are private or gated; it is sent there and nowhere else. Default: in Node that of the
   * environment ($HF_TOKEN, or where `hf auth login` puts it); a browser knows none. In a page let its user type it: whoever
   * reads the page's code has what is written there.
   */
  token?: string | undefined;
  /**
   * What computes: "cpu" (in a browser the same as "wasm"), "webgpu" for the GPU, in Node also "cuda", "coreml" and "dml"
   * where ONNX Runtime has them. "auto", the default, takes the GPU in a browser that has one, and the processor in Node.
   */
  device?: Device | undefined;
  /** CPU threads, 1 to 1024. Default: one per physical core. */
  threads?: number | undefined;
  /**
   * In what the linear layers of the transformer and of T5 compute: "float32", "int8", in a quarter of the memory for images
   * that differ a little, or "int4", in a sixth of it for images that differ more. Default: the first of them in which the
   * weights of a network fit into three quarters of the memory; of those over 4 GB in float32 "int8", if this machine
   * multiplies in it at least 1.5 times as fast, which takes a second or two to measure. "float16" is for GPUs: linear layers,
   * convolutions and attention of the transformer compute in it. Such weights are made once, from any checkpoint, and kept in
   * a cache folder ($FEMO_CACHE, $XDG_CACHE_HOME/femo or ~/.cache/femo).
   */
  dtype?: ModelDtype | undefined;
  /**
   * The autoencoder for a model file that has none: a folder or a repository on the Hub, of an autoencoder alone or of a
   * pipeline that has one; for FLUX also a file, such as `ae.safetensors`.
   */
  vae?: string | undefined;
  /** The text encoders for a FLUX file that has none, as `vae`: CLIP's, such as `clip_l.safetensors`, */
  textEncoder?: string | undefined;
  /** and T5's, such as `t5xxl_fp16.safetensors`. */
  textEncoder2?: string | undefined;
  /** The tokenizer for a FLUX file: a folder or a repository on the Hub, of a pipeline or of the tokenizer alone. */
  tokenizer?: string | undefined;
  /** The same for the second text encoder. Default: where `tokenizer` is. */
  tokenizer2?: string | undefined;
  /** Changes to the weights of FLUX that are merged in: a LoRA file, or several, each with how much of it. */
  lora?: string | LoraOption | readonly (string | LoraOption)[] | undefined;
  /** Attention heads of a file of the original DiT release whose width is not one of the paper's. */
  heads?: number | undefined;
  /** Stops the opening; what has been downloaded or converted is kept and the next one goes on from there. */
  signal?: AbortSignal | undefined;
  /** Called as a download goes on. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Called as weights are made for a `dtype`, tensor by tensor; not called if they are there. */
  onConvert?: ((progress: ConversionProgress) => void) | undefined;
}

/** A LoRA file: `path` on this machine, or a repository on the Hub that has `pytorch_lora_weights.safetensors`. */
export interface LoraOption {
  readonly path: string;
  /** How much of it: 1, the default, is what it was trained for, 0 nothing. */
  readonly weight?: number | undefined;
}

const isLora = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return isText(value);
  const { path, weight = 1, ...others } = value as Record<string, unknown>;
  return isText(path) && Number.isFinite(weight) && Object.keys(others).length === 0;
};
const isText = (value: unknown): boolean => typeof value === "string" && value !== "";
const isFile = (value: unknown): boolean => typeof File !== "undefined" && value instanceof File;
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;
const isOneOf =
  (values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);

const pretrainedTypes: OptionTypes<PretrainedOptions> = {
  variant: [isText, 'the infix of file names, such as "fp16"'],
  revision: [isText, "a branch, tag or commit"],
  cacheDir: [isText, "the path of a folder"],
  token: [(value) => isText(value) && isToken(value as string), 'a token of the Hub, such as "hf_..."'],
  device: [isOneOf(devices), `one of ${devices.join(", ")}`],
  threads: [isCount, "a positive integer"],
  dtype: [isOneOf(modelDtypes), `one of ${modelDtypes.join(", ")}`],
  vae: [isText, "a folder, or owner/name on the Hub, of FLUX also a file"],
  textEncoder: [isText, "a file, a folder, or owner/name on the Hub"],
  textEncoder2: [isText, "a file, a folder, or owner/name on the Hub"],
  tokenizer: [isText, "a folder, or owner/name on the Hub"],
  tokenizer2: [isText, "a folder, or owner/name on the Hub"],
  lora: [(value) => [value].flat().every(isLora), "a file, { path, weight }, or a list of them"],
  heads: [isCount, "a positive integer"],
  signal: [isAbortSignal, "an AbortSignal"],
  onProgress: [isFunction, "a function"],
  onConvert: [isFunction, "a function"],
};

/**
 * Checks what `DiffusionPipeline.fromPretrained` was given; options that are undefined count as absent.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkPretrained(place: unknown, options: PretrainedOptions): PretrainedOptions {
  const isPlace =
    isText(place) || place instanceof URL || isFile(place) || (Array.isArray(place) && place.every(isFile));
  if (!isPlace) {
    throw new FemoError(
      "E_OPTION",
      'the model: expected its name, such as "avatars-flux", the path of a folder or file, or owner/name on the Hub; found ' +
        describe(place),
    );
  }
  checkTypes(options, pretrainedTypes);
  return options;
}
