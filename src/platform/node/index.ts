import { totalmem } from "node:os";
import type { Platform } from "../platform.js";
import { startNodeEngine } from "./engine.js";
import { keptCheckpoint } from "./kept.js";
import { findModel } from "./models.js";
import { findFile, sha256Of } from "./published.js";

/** A quarter of the machine's memory, or of what the process may have: two graphs of DiT-XL/2 in 24 GB. */
function graphMemory(): number {
  const allowed = process.constrainedMemory?.() ?? 0;
  return Math.min(totalmem(), allowed > 0 ? allowed : Number.POSITIVE_INFINITY) / 4;
}

/** Node: files on disk, the Hub through the cache of Python's huggingface_hub, onnxruntime-node in a process of its own. */
export const platform: Platform = {
  createEngine: startNodeEngine,
  graphMemory,
  findModel: (place, options) => findModel(place, options),
  findFile: (file, options) => findFile(file, options),
  sha256: sha256Of,
  kept: keptCheckpoint,
};
