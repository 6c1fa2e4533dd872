import { FemoError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import { parseJson } from "./json.js";
import { checkFormat, FLOAT8_FORMATS, FORMAT_ADVICE, refuseFormat } from "./quantization-formats.js";
import type { TensorInfo } from "./safetensors.js";
import { formatDims, listSome, quote } from "./text.js";

const MAX_DESCRIPTION_BYTES = 65_536;

const SCALE = /^(.*)\.(?:scale_weight|weight_scale)$/s;
/** Scales of activations that are quantised too, which they are not here. */
const INPUT_SCALE = /\.(?:scale_input|input_scale)$/;
const DESCRIPTION = /\.comfy_quant$/;
const MARKER = /(?:^|\.)scaled_fp8$/;
/** Layers that are no products, and so have no scale even where the others have. */
const UNSCALED = /(?:^|\.)(?:shared|embed_tokens|token_embedding|position_embedding|relative_attention_bias)\.weight$/;

/** A checkpoint and what scales it had. */
export interface ScaledCheckpoint {
  /** Without scales, markers and descriptions. */
  readonly checkpoint: Checkpoint;
  /** By the name of a weight in 8-bit floating point the scalar with which it is multiplied. */
  readonly scales: ReadonlyMap<string, TensorInfo>;
}

/**
 * Parts the weights of a file of "scaled fp8" from their scales: `X.scale_weight` beside `X.weight` and a marker
 * `scaled_fp8`, or, in newer files, `X.weight_scale` and a description `X.comfy_quant`. A file without any stays as it is.
 * @throws FemoError E_WEIGHT if a scale is no scalar or has no such weight, a matrix in 8-bit floating point has none where
 *   others have, or the format is another (nvfp4, int8 ...); E_FILE if a description is no JSON
 */
export async function separateScales(checkpoint: Checkpoint): Promise<ScaledCheckpoint> {
  const scales = new Map<string, TensorInfo>();
  const rest: TensorInfo[] = [];
  let scaled = false;
  for (const tensor of checkpoint.tensors() as TensorInfo[]) {
    const { name } = tensor;
    const layer = SCALE.exec(name)?.[1];
    if (layer !== undefined) scales.set(`${layer}.weight`, tensor);
    else if (MARKER.test(name)) checkMarker(checkpoint.name, tensor);
    else if (DESCRIPTION.test(name)) await checkDescription(checkpoint, tensor);
    else if (/\.weight_scale_2$/.test(name)) refuseFormat(checkpoint.name, name.replace(/_scale_2$/, ""), "nvfp4");
    else if (!INPUT_SCALE.test(name)) {
      rest.push(tensor);
      continue;
    }
    scaled = true;
  }
  if (!scaled) return { checkpoint, scales };
  for (const [name, scale] of scales) checkScale(checkpoint, name, scale);
  const without = rest.filter(
    ({ name, dtype, shape }) =>
      FLOAT8_FORMATS.includes(dtype) && shape.length > 1 && !scales.has(name) && !UNSCALED.test(name),
  );
  if (without.length > 0) {
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: its 8-bit weights have scales, but ${without.length} have none. The file was not converted ` +
        `as a whole: take another.${listSome(without.map(({ name }) => quote(name)))}`,
    );
  }
  return { checkpoint: checkpoint.withTensors(rest), scales };
}

/** The marker's type names the format of all weights; float32 stands for the first there was. */
function checkMarker(file: string, { name, dtype, shape }: TensorInfo): void {
  if ((FLOAT8_FORMATS.includes(dtype) || dtype === "float32") && shape.length === 1) return;
  throw new FemoError(
    "E_WEIGHT",
    `${file}: tensor ${quote(name)}: expected a vector of float32, ${FLOAT8_FORMATS.join(", ")}, found ${dtype} ` +
      `${formatDims(shape)}. ${FORMAT_ADVICE}`,
  );
}

/** `X.comfy_quant`: bytes of JSON that say how `X.weight` is stored. */
async function checkDescription(checkpoint: Checkpoint, { name, dtype, byteLength }: TensorInfo): Promise<void> {
  const where = `${checkpoint.name}: tensor ${quote(name)}`;
  if (dtype !== "uint8" || byteLength > MAX_DESCRIPTION_BYTES) {
    const found = `${byteLength} bytes of ${dtype}`;
    throw new FemoError("E_FILE", `${where}: expected at most ${MAX_DESCRIPTION_BYTES} bytes of JSON, found ${found}.`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await checkpoint.readBytes(name));
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    throw new FemoError("E_FILE", `${where}: expected JSON in UTF-8, found other bytes. Take another file.`, { cause });
  }
  const weight = name.replace(DESCRIPTION, ".weight");
  const format = checkFormat(checkpoint.name, weight, parseJson(text, where, "E_FILE", "Take another file."));
  const found = checkpoint.get(weight)?.dtype;
  if (found !== format) refuseFormat(checkpoint.name, weight, `${found ?? "no tensor"} where ${name} says ${format}`);
}

function checkScale(checkpoint: Checkpoint, weight: string, { name, dtype, shape, byteLength }: TensorInfo): void {
  const found = checkpoint.get(weight)?.dtype;
  if (found === undefined || !FLOAT8_FORMATS.includes(found)) {
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: tensor ${quote(name)}: expected a weight ${quote(weight)} in ${FLOAT8_FORMATS.join(" or ")} ` +
        `that it scales, found ${found ?? "none"}. ${FORMAT_ADVICE}`,
    );
  }
  if (dtype === "float32" && byteLength === 4) return;
  throw new FemoError(
    "E_WEIGHT",
    `${checkpoint.name}: tensor ${quote(name)}: expected one scale in float32, found ${dtype} ${formatDims(shape)}. ` +
      `Scales of rows or blocks are not read. ${FORMAT_ADVICE}`,
  );
}
