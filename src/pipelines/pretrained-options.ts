import { type ModelDtype, modelDtypes } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { type Device, devices } from "../platform/device.js";
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
  /** What computes: "cpu", or "auto", the default, which takes the best there is. */
  device?: Device | undefined;
  /** CPU threads, 1 to 1024. Default: one per physical core. */
  threads?: number | undefined;
  /**
   * In what the transformer's linear layers compute: "float32", the default, "int8", in a quarter of the memory for images
   * that differ a little, or "int4", in a sixth of it for images that differ more. Such weights are made once, from any
   * checkpoint, and kept in a cache folder ($FEMO_CACHE, $XDG_CACHE_HOME/femo or ~/.cache/femo).
   */
  dtype?: ModelDtype | undefined;
  /**
   * The autoencoder for a model file that has none: a folder or a repository on the Hub, of an autoencoder alone or of a
   * pipeline that has one.
   */
  vae?: string | undefined;
  /** Attention heads of a model file of the original DiT release whose width is not one of the paper's. */
  heads?: number | undefined;
  /** Stops the opening; what has been downloaded or converted is kept and the next one goes on from there. */
  signal?: AbortSignal | undefined;
  /** Called as a download goes on. */
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Called as weights are made for a `dtype`, tensor by tensor; not called if they are there. */
  onConvert?: ((progress: ConversionProgress) => void) | undefined;
}

const isText = (value: unknown): boolean => typeof value === "string" && value !== "";
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;
const isOneOf =
  (values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);

const pretrainedTypes: OptionTypes<PretrainedOptions> = {
  variant: [isText, 'the infix of file names, such as "fp16"'],
  revision: [isText, "a branch, tag or commit"],
  cacheDir: [isText, "the path of a folder"],
  device: [isOneOf(devices), `one of ${devices.join(", ")}, for this build runs on the CPU only`],
  threads: [isCount, "a positive integer"],
  dtype: [isOneOf(modelDtypes), `one of ${modelDtypes.join(", ")}`],
  vae: [isText, "a folder, or owner/name on the Hub"],
  heads: [isCount, "a positive integer"],
  signal: [isAbortSignal, "an AbortSignal"],
  onProgress: [isFunction, "a function"],
  onConvert: [isFunction, "a function"],
};

/**
 * Checks what `DiffusionPipeline.fromPretrained` was given; options that are undefined count as absent.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkPretrained(pathOrName: unknown, options: PretrainedOptions): PretrainedOptions {
  if (!isText(pathOrName)) {
    throw new FemoError(
      "E_OPTION",
      'the model: expected its name, such as "avatars-dit", the path of a folder or file, or owner/name on the Hub; found ' +
        describe(pathOrName),
    );
  }
  checkTypes(options, pretrainedTypes);
  return options;
}
