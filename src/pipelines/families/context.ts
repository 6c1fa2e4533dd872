import { defaultDtype, type Keep, type ModelDtype } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import type { Sessions } from "../../runtime/sessions.js";
import type { Linears } from "../../tracing/index.js";
import type { Checkpoint, LoraAdapter } from "../../weights/index.js";
import type { LatentDecoder } from "../decoder.js";

/** What a family is opened with. */
export interface FamilyContext {
  readonly sessions: Sessions;
  /** In what the transformer and T5 are to compute. Default: see `defaultDtype`. */
  readonly dtype: ModelDtype | undefined;
  /** What the weights of a network may take if that is left open, in bytes. */
  readonly maxWeightBytes: number;
  /** How many times as fast the device multiplies in 8 bits as in float32; measured when it is asked for first. */
  readonly int8TimesAsFast: () => Promise<number>;
  /** What is to be merged into the weights. */
  readonly lora: readonly LoraAdapter[];
  /** For weights that are computed, such as those in fewer bits. */
  readonly keep: Keep;
}

interface ChosenDtype {
  readonly dtype: ModelDtype;
  readonly notes: readonly string[];
}

/**
 * In what a network computes, and a sentence for the user if the machine decided.
 * @throws FemoError E_OPTION if the device does not compute in it
 */
export async function dtypeOf(
  { dtype, maxWeightBytes, int8TimesAsFast, sessions }: FamilyContext,
  checkpoint: Checkpoint,
  linears: () => Linears,
): Promise<ChosenDtype> {
  const { kind, title, float16 = true } = sessions.engine.device;
  if (dtype === "float16" && !float16) {
    throw new FemoError("E_OPTION", `dtype: ${title} does not compute in float16 (shader-f16): take "float32"`);
  }
  if (dtype === "float16" && (kind === "cpu" || kind === "wasm")) {
    const note = "A processor computes in float32 what dtype float16 has rounded, which saves nothing: it is for GPUs.";
    return { dtype, notes: [note] };
  }
  if (dtype !== undefined) return { dtype, notes: [] };
  const chosen = await defaultDtype(checkpoint, linears, maxWeightBytes, int8TimesAsFast);
  if (chosen.dtype === "float32") return { dtype: chosen.dtype, notes: [] };
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  const why =
    "timesAsFast" in chosen
      ? `in which this machine multiplies ${chosen.timesAsFast.toFixed(1)} times as fast as in float32`
      : `as its weights would take ${gigabytes(chosen.bytesInFloat32)} in float32 and may take ` +
        `${gigabytes(maxWeightBytes)}, three quarters of the memory`;
  return {
    dtype: chosen.dtype,
    notes: [`${checkpoint.name} computes in ${chosen.dtype}, ${why}. Pass dtype to choose.`],
  };
}

/** The same of a text encoder, which runs once, and which float16 would not hold: T5's sums over blocks exceed it. */
export const textDtypeOf = (context: FamilyContext, checkpoint: Checkpoint, linears: () => Linears) =>
  dtypeOf({ ...context, dtype: context.dtype === "float16" ? undefined : context.dtype }, checkpoint, linears);

/** @throws FemoError E_CONFIG if what the model draws cannot be shown: colours or grey, unless it is decoded */
export function checkChannels(name: string, channels: number, decoder: LatentDecoder | undefined): void {
  if (decoder ? channels === decoder.latentChannels : [1, 3].includes(channels)) return;
  const drawn = decoder
    ? `the vae decodes ${decoder.latentChannels} channels`
    : "without a vae a model must draw 3 channels (colours) or 1 (grey)";
  throw new FemoError("E_CONFIG", `${name}: ${drawn}, found ${channels} in the transformer`);
}
