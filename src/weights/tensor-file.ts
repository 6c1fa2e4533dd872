import type { ByteSource } from "./byte-source.js";
import { startsAsZip } from "./recognize.js";
import { readSafetensorsHeader, type TensorInfo } from "./safetensors.js";
import { readTorchFile } from "./torch.js";

/**
 * The tensors of a file of a known format, in the order of their bytes: what `torch.save` wrote, told by its first bytes
 * or by its name, or safetensors.
 * @param file what `TensorInfo.file` says, if not the name of the source
 * @throws FemoError E_FILE, E_WEIGHT as `readTorchFile` or `readSafetensorsHeader`
 */
export async function readTensors(source: ByteSource, file = source.name): Promise<TensorInfo[]> {
  const { tensors } = (await isTorch(source))
    ? await readTorchFile(source, file)
    : await readSafetensorsHeader(source, file);
  return [...tensors.values()];
}

/** The free text entries of a file: those of a safetensors header; formats without have none. @throws FemoError as `readTensors` */
export async function readMetadata(source: ByteSource): Promise<ReadonlyMap<string, string>> {
  return (await isTorch(source)) ? new Map() : (await readSafetensorsHeader(source)).metadata;
}

const isTorch = async (source: ByteSource): Promise<boolean> =>
  startsAsZip(await source.read(0, Math.min(source.size, 4))) || /\.(bin|pt|pth|ckpt)$/i.test(source.name);
