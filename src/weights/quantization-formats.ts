import { FemoError } from "../errors.js";
import { isObject, parseJson } from "./json.js";
import { describeValue, quote } from "./text.js";

/** Formats of 8-bit floating-point weights with one scale each, as `comfy_quant` and `_quantization_metadata` name them. */
export const FLOAT8_FORMATS: readonly string[] = ["float8_e4m3fn", "float8_e5m2"];
/** Key of the header's free text under which newer files say the format of each layer. */
const METADATA_KEY = "_quantization_metadata";

/** What to do with a file in another format. */
export const FORMAT_ADVICE = "Take a file in bfloat16, in fp8 with a scale for each weight, or a GGUF file.";

/**
 * Checks what the header of a safetensors file says of the formats of its layers, if it says anything.
 * @param file named in errors
 * @throws FemoError E_FILE if it is no JSON of layers, E_WEIGHT if a layer has a format that is not read
 */
export function checkQuantizationMetadata(file: string, metadata: ReadonlyMap<string, string>): void {
  const text = metadata.get(METADATA_KEY);
  if (text === undefined) return;
  const where = `${file}, ${METADATA_KEY}`;
  const json = parseJson(text, where, "E_FILE", "Take another file.");
  const layers = isObject(json) ? json.layers : undefined;
  if (!isObject(layers)) {
    throw new FemoError(
      "E_FILE",
      `${where}: expected an object "layers" of formats by layer, found ${describeValue(layers ?? json)}. Take another file.`,
    );
  }
  for (const [layer, description] of Object.entries(layers)) checkFormat(file, `${layer}.weight`, description);
}

/** @throws FemoError E_WEIGHT unless a description says a format that is read, which it gives back */
export function checkFormat(file: string, weight: string, description: unknown): string {
  const format = isObject(description) ? description.format : undefined;
  if (typeof format === "string" && FLOAT8_FORMATS.includes(format)) return format;
  return refuseFormat(file, weight, typeof format === "string" ? quote(format) : describeValue(format ?? description));
}

/** @throws FemoError E_WEIGHT that names weight and format */
export function refuseFormat(file: string, weight: string, format: string): never {
  throw new FemoError(
    "E_WEIGHT",
    `${file}: tensor ${quote(weight)}: expected a format out of ${FLOAT8_FORMATS.join(", ")}, found ${format}. ${FORMAT_ADVICE}`,
  );
}
