import { type Planes, type RgbImage, resizeBicubicFloat, resizeBilinear } from "../images/index.js";
import {
  foldedInception,
  INCEPTION_SIZE,
  type InceptionOutput,
  inceptionNames,
  inceptionV3,
} from "../models/inception-v3.js";
import type { Network } from "../runtime/network.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import type { Checkpoint } from "../weights/index.js";
import { batchOf, type NetworkContext, runRows } from "./networks.js";

/**
 * How images come to Inception's 299x299 pixels. FIDs of two conventions cannot be compared.
 * - `pytorch`: as pytorch-fid, usual for text to image;
 * - `tf`: as guided-diffusion's evaluator (ADM, DiT), torch-fidelity and torchmetrics;
 * - `clean`: as clean-fid.
 */
export type FidConvention = "pytorch" | "tf" | "clean";

/** All of them. */
export const fidConventions: readonly FidConvention[] = ["pytorch", "tf", "clean"];

/** Pixels as a convention gives them to the network. */
export function inceptionInput(image: RgbImage, convention: FidConvention): Planes {
  const side = INCEPTION_SIZE;
  switch (convention) {
    case "pytorch":
      return mapped(resizeBilinear(image, side, side, "half"), (level) => (level - 127.5) / 127.5);
    case "tf":
      return mapped(resizeBilinear(image, side, side, "tf1"), (level) => (level - 128) / 128);
    case "clean":
      return mapped(resizeBicubicFloat(image, side, side), (level) => (Math.min(Math.max(level, 0), 255) - 128) / 128);
  }
}

const mapped = ({ dims, data }: Planes, map: (level: number) => number): Planes => ({ dims, data: data.map(map) });

/** FID's Inception-v3 with its weights: from images to features. */
export class Inception<Output extends InceptionOutput> {
  /** @internal */
  readonly network: Network;
  readonly #outputs: readonly Output[];

  private constructor(network: Network, outputs: readonly Output[]) {
    this.network = network;
    this.#outputs = outputs;
  }

  /**
   * @internal
   * @param checkpoint of pytorch-fid's file
   * @param outputs what `features` gives
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the network's tensors; what `Platform.kept` throws
   */
  static async open<Output extends InceptionOutput>(
    checkpoint: Checkpoint,
    outputs: readonly Output[],
    { sessions, keep }: NetworkContext,
  ): Promise<Inception<Output>> {
    const folded = await keep(foldedInception(checkpoint));
    // The whole file was looked at; not all of it is needed for every output.
    const network = weightedNetwork(inceptionV3(outputs), folded, sessions, { ignore: () => true });
    return new Inception(network, outputs);
  }

  /** Rows of each output, one for each image. @throws FemoError E_RUNTIME as `Session.run`, E_IMAGE if one is malformed */
  features(images: readonly RgbImage[], convention: FidConvention): Promise<Readonly<Record<Output, Float32Array[]>>> {
    const image = batchOf(images.map((one) => inceptionInput(one, convention)));
    return runRows(this.network, { [inceptionNames.image]: image }, this.#outputs);
  }
}
