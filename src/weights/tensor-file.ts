import type { ByteSource } from "./byte-source.js";
import { checkQuantizationMetadata } from "./quantization-formats.js";
import { startsAsGguf, startsAsZip } from "./recognize.js";
import { readSafetensorsHeader, type TensorInfo } from "./safetensors.js";

/**
 * The tensors of a file of a known format, in the order of their bytes: what `torch.save` wrote, told by its first bytes
 * or by its name, GGUF, told by its first bytes, or safetensors.
 * @param file what `TensorInfo.file` says, if not the name of the source
 * @throws FemoError E_FILE, E_WEIGHT as `readTorchFile`, `readGguf` or `readSafetensorsHeader`; E_WEIGHT
 *   also if a safetensors file says that it is quantised otherwise than in 8-bit floating point with scales
 */
export async function readTensors(source: ByteSource, file = source.name): Promise<TensorInfo[]> {
  switch (await formatOf(source)) {
    case "gguf":
      return [...(await (await import("./gguf.js")).readGguf(source, file)).tensors.values()];
    case "torch":
      return [...(await (await import("./torch.js")).readTorchFile(source, file)).tensors.values()];
  }
  const { tensors, metadata } = await readSafetensorsHeader(source, file);
  checkQuantizationMetadata(source.name, metadata);
  return [...tensors.values()];
}

/**
 * The free text entries of a file: those of a safetensors header, what lies beside the weights in a file of `torch.save`;
 * GGUF has none here.
 * @throws FemoError as `readTensors`
 */
export async function readMetadata(source: ByteSource): Promise<ReadonlyMap<string, string>> {
  switch (await formatOf(source)) {
    case "gguf":
      return new Map();
    case "torch":
      return (await (await import("./torch.js")).readTorchFile(source)).metadata;
  }
  return (await readSafetensorsHeader(source)).metadata;
}

async function formatOf(source: ByteSource): Promise<"gguf" | "torch" | "safetensors"> {
  const start = await source.read(0, Math.min(source.size, 4));
  if (startsAsGguf(start)) return "gguf";
  return startsAsZip(start) || /\.(bin|pt|pth|ckpt)$/i.test(source.name) ? "torch" : "safetensors";
}
