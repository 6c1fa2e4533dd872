import { FemoError } from "../errors.js";
import type { Planes } from "../images/index.js";
import { type AutoencoderKLConfig, isDecoderTensor, withCurrentNames } from "../models/autoencoder-kl.js";
import { autoencoderKLEncoder, encoderNames } from "../models/autoencoder-kl-encoder.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import { once } from "../tracing/index.js";
import type { Checkpoint } from "../weights/index.js";

/** The latents that a picture may have, as many as there is noise. */
export interface LatentDistribution {
  /** [latentChannels, h, w] */
  readonly dims: Planes["dims"];
  /** A latent as diffusion takes it. @param eps a standard normal sample as long */
  sample(eps: Float32Array): Float32Array;
}

/** diffusers keeps the logarithm of the variance there. */
const LOG_VARIANCE = [-30, 20] as const;

/** From images to latents. Weights are looked for once they are needed: not every autoencoder is published with them. */
export class LatentEncoder {
  readonly #config: AutoencoderKLConfig;
  readonly #network: () => Network;

  constructor(config: AutoencoderKLConfig, checkpoint: Checkpoint, sessions: Sessions) {
    this.#config = config;
    this.#network = once(() =>
      weightedNetwork(autoencoderKLEncoder(config), withCurrentNames(checkpoint), sessions, {
        ignore: isDecoderTensor,
      }),
    );
  }

  /**
   * @param image of [-1, 1], its sides multiples of `LatentDecoder.stride`
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the encoder's tensors, apart from a decoder's
   */
  async encode({ dims, data }: Planes): Promise<LatentDistribution> {
    const { image, mean, logvar } = encoderNames;
    const feeds = { [image]: { dtype: "float32", dims: [1, ...dims], data } as const };
    const { outputs } = await this.#network().run({ feeds, fetch: [mean, logvar] });
    const [means, variances] = [outputs[mean], outputs[logvar]];
    if (!(means?.data instanceof Float32Array) || !(variances?.data instanceof Float32Array)) {
      throw new FemoError("E_RUNTIME", "the encoder gave no latent");
    }
    const size = means.dims.slice(1) as unknown as Planes["dims"];
    const [lowest, highest] = LOG_VARIANCE;
    const deviations = variances.data.map((x) => Math.exp(0.5 * Math.min(Math.max(x, lowest), highest)));
    const { latentScale, latentShift } = this.#config;
    const own = means.data;
    const plane = size[1] * size[2];
    const at = (values: readonly number[], k: number): number =>
      values[values.length > 1 ? Math.floor(k / plane) : 0] as number;
    return {
      dims: size,
      sample: (eps) =>
        own.map(
          (x, k) => (x + (deviations[k] as number) * (eps[k] as number) - at(latentShift, k)) / at(latentScale, k),
        ),
    };
  }
}
