import { basename, dirname, resolve } from "node:path";
import { type OriginalDiT, type OriginalDiTOptions, originalDiT } from "../models/dit-original.js";
import { openCheckpoint } from "../weights/index.js";
import { nodeFolder } from "../weights/node-folder.js";

/**
 * Opens the transformer of the original DiT release, such as `DiT-XL-2-256x256.pt`, or what its training script saved.
 * @throws FemoError E_FILE if there is no such file or it is malformed, and as `originalDiT`
 */
export async function openOriginalDiT(path: string, options?: OriginalDiTOptions): Promise<OriginalDiT> {
  const file = resolve(path);
  return originalDiT(await openCheckpoint(nodeFolder(dirname(file)), basename(file)), options);
}
