import { mkdir, open, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { safetensorsHeader } from "../dist/weights/safetensors-header.js";

/**
 * A network of a pipeline: its config.json, and the tensors it has, by default in float32.
 * @typedef {{ config: object, weights: readonly { name: string, shape: readonly number[] }[], dtype?: "float32" | "bfloat16" }} RandomModel
 */

/**
 * Writes a pipeline in diffusers' layout, with random weights: normal numbers over the square root of a layer's inputs,
 * biases of a tenth. No layer is zero, so every part of the network bears on what it draws, which is noise.
 * @param {string} folder made if it is not there
 * @param {{ index: object, scheduler: object, models: Readonly<Record<string, RandomModel>> }} pipeline
 *   model_index.json, scheduler_config.json, and the networks by the names of their folders
 * @param {Float32Array} stock normal numbers, from which every tensor takes a part at another place
 */
export async function writeRandomPipeline(folder, { index, scheduler, models }, stock) {
  await mkdir(join(folder, "scheduler"), { recursive: true });
  await writeFile(join(folder, "scheduler/scheduler_config.json"), json(scheduler));
  for (const [name, { config, weights, dtype = "float32" }] of Object.entries(models)) {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, "config.json"), json(config));
    await writeSafetensors(join(folder, name, "diffusion_pytorch_model.safetensors"), weights, dtype, stock);
  }
  await writeFile(join(folder, "model_index.json"), json(index)); // last: a folder with it is whole
}

/** @param {object} value */
const json = (value) => `${JSON.stringify(value, null, 2)}\n`;

/**
 * @param {string} path
 * @param {RandomModel["weights"]} weights
 * @param {NonNullable<RandomModel["dtype"]>} dtype
 * @param {Float32Array} stock
 */
async function writeSafetensors(path, weights, dtype, stock) {
  const known = new Map();
  const scaledStock = (/** @type {number} */ fanIn) => {
    if (!known.has(fanIn))
      known.set(
        fanIn,
        inDtype(
          dtype,
          stock.map((x) => x / Math.sqrt(fanIn)),
        ),
      );
    return known.get(fanIn);
  };
  const file = await open(`${path}.tmp`, "w");
  await file.write(safetensorsHeader(weights.map((weight) => ({ ...weight, dtype }))));
  for (const [i, { shape }] of weights.entries()) {
    const size = shape.reduce((a, b) => a * b, 1);
    const fanIn = shape.length > 1 ? size / /** @type {number} */ (shape[0]) : 100;
    const scaled = scaledStock(fanIn);
    for (let done = 0, at = (i * 7919) % stock.length; done < size; at = 0) {
      const part = scaled.subarray(at, Math.min(stock.length, at + size - done));
      await file.write(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
      done += part.length;
    }
  }
  await file.close();
  await rename(`${path}.tmp`, path);
}

/**
 * @param {NonNullable<RandomModel["dtype"]>} dtype
 * @param {Float32Array} values
 * @returns {Float32Array | Uint16Array} the upper half of each number where they are to be bfloat16
 */
function inDtype(dtype, values) {
  if (dtype === "float32") return values;
  const bits = new Uint16Array(values.buffer);
  return new Uint16Array(values.length).map((_, i) => /** @type {number} */ (bits[2 * i + 1]));
}
