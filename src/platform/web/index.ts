import { FemoError } from "../../errors.js";
import type { Platform } from "../platform.js";
import { createWebEngine } from "./engine.js";
import { keptCheckpoint } from "./kept.js";
import { findModel } from "./models.js";

const GIBIBYTE = 2 ** 30;

/** A quarter of the memory, of which browsers tell no more than 8 GB and some nothing. */
function graphMemory(): number {
  const { deviceMemory = 4 } = navigator as { deviceMemory?: number };
  return (Math.min(deviceMemory, 8) * GIBIBYTE) / 4;
}

/** What the networks of metrics are found by, whose weights are made for studies of many images. */
async function notHere(): Promise<never> {
  throw new FemoError("E_RUNTIME", "the networks of metrics run in Node, not in a browser. Use `femo metrics` there");
}

/**
 * Browsers: models by their address, from files that the user picked, or from the Hub, kept in the Origin Private File
 * System or in Cache Storage; onnxruntime-web in a worker.
 */
export const platform: Platform = {
  createEngine: createWebEngine,
  graphMemory,
  findModel,
  findFile: notHere,
  sha256: notHere,
  kept: keptCheckpoint,
};
