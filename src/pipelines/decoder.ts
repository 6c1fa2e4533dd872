import { type Planes, type TileOptions, tiledDecode } from "../images/index.js";
import {
  type AutoencoderKLConfig,
  autoencoderKLDecoder,
  decoderNames,
  isEncoderTensor,
  latentStride,
  withCurrentNames,
} from "../models/autoencoder-kl.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import type { Checkpoint } from "../weights/index.js";

/** From latents to images. One graph serves all sizes. */
export class LatentDecoder {
  /** Pixels of the image along one side of a latent pixel. */
  readonly stride: number;
  readonly latentChannels: number;
  readonly network: Network;

  /**
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the decoder's tensors, apart from an encoder's;
   *   E_FILE as `graphWriter`
   */
  constructor(config: AutoencoderKLConfig, checkpoint: Checkpoint, sessions: Sessions) {
    this.stride = latentStride(config);
    this.latentChannels = config.latentChannels;
    const weights = withCurrentNames(checkpoint);
    this.network = weightedNetwork(autoencoderKLDecoder(config), weights, sessions, { ignore: isEncoderTensor });
  }

  /**
   * A latent as diffusion leaves it, [latentChannels, h, w], to an image of about [-1, 1], [channels, stride h, stride w].
   * @throws FemoError E_OPTION as `tiledDecode`, E_RUNTIME if the latent has other channels; the signal's reason if it
   *   was aborted
   */
  decode(latent: Planes, options?: TileOptions): Promise<Planes> {
    return tiledDecode(latent, this.stride, (tile) => this.#run(tile), options);
  }

  async #run({ dims, data }: Planes): Promise<Planes> {
    const feeds = { [decoderNames.latent]: { dtype: "float32", dims: [1, ...dims], data } as const };
    const { outputs } = await this.network.run({ feeds, fetch: [decoderNames.image] });
    const image = outputs[decoderNames.image];
    if (!(image?.data instanceof Float32Array) || image.dims.length !== 4) throw new Error("the decoder gave no image");
    const [, channels, height, width] = image.dims as [number, number, number, number];
    return { dims: [channels, height, width], data: image.data };
  }
}
