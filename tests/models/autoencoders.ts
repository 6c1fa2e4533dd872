import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Planes } from "../../src/images/planes.js";
import { type AutoencoderKLConfig, autoencoderKLConfigFromJson } from "../../src/models/autoencoder-kl.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { floats } from "../runtime/helpers.js";

const folder = fileURLToPath(new URL("../goldens/autoencoder-kl", import.meta.url));

/** An autoencoder in diffusers' layout. */
export async function openAutoencoder(name: string): Promise<{ config: AutoencoderKLConfig; checkpoint: Checkpoint }> {
  const json = JSON.parse(readFileSync(`${folder}/${name}/config.json`, "utf8"));
  const checkpoint = await openCheckpoint(nodeFolder(folder), `${name}/diffusion_pytorch_model.safetensors`);
  return { config: autoencoderKLConfigFromJson(json), checkpoint };
}

/** What diffusers made of which input. */
export async function openDecoded(name: string, file = "golden"): Promise<(tensor: string) => Promise<HostTensor>> {
  const checkpoint = await openCheckpoint(nodeFolder(folder), `${name}/${file}.safetensors`);
  return async (tensor) => floats(checkpoint.get(tensor)?.shape ?? [], await checkpoint.readTensor(tensor));
}

/** A batch of one as planes. */
export function planesOf({ dims, data }: HostTensor): Planes {
  return { dims: dims.slice(-3) as unknown as Planes["dims"], data: data as Float32Array };
}
