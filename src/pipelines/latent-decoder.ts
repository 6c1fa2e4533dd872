import { countFlops, type Graph } from "../graph/index.js";
import {
  type AutoencoderKLConfig,
  autoencoderKLDecoder,
  decoderNames,
  isEncoderTensor,
  latentStride,
  withCurrentNames,
} from "../models/autoencoder-kl.js";
import type { Engine, GraphFile, Session } from "../runtime/engine.js";
import type { Checkpoint } from "../weights/index.js";
import { graphWriter } from "./graph-writer.js";
import type { Planes } from "./planes.js";
import { type TileOptions, tiledDecode } from "./tiled-decode.js";

/** The decoder of an autoencoder with its weights, loaded when first needed. One session serves all sizes. */
export class LatentDecoder {
  /** Pixels of the image along one side of a latent pixel. */
  readonly stride: number;
  readonly latentChannels: number;
  readonly #graph: Graph;
  readonly #file: () => GraphFile;
  readonly #engine: Engine;
  #session: Promise<Session> | undefined;

  /**
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the decoder's tensors, apart from an encoder's;
   *   E_FILE as `graphWriter`
   */
  constructor(config: AutoencoderKLConfig, checkpoint: Checkpoint, engine: Engine) {
    this.stride = latentStride(config);
    this.latentChannels = config.latentChannels;
    this.#engine = engine;
    this.#graph = autoencoderKLDecoder(config);
    const weights = withCurrentNames(checkpoint);
    const needed = this.#graph.reachable().weights.map(({ name, shape }) => ({ name, shape: shape as number[] }));
    weights.verify(needed, { ignore: isEncoderTensor });
    const write = graphWriter(weights);
    this.#file = () => write(this.#graph);
  }

  /**
   * A latent as diffusion leaves it, [latentChannels, h, w], to an image of about [-1, 1], [channels, stride h, stride w].
   * @throws FemoError E_OPTION as `tiledDecode`, E_RUNTIME if the latent has other channels; the signal's reason if it
   *   was aborted
   */
  decode(latent: Planes, options?: TileOptions): Promise<Planes> {
    return tiledDecode(latent, this.stride, (tile) => this.#run(tile), options);
  }

  /** Floating-point operations of decoding a latent of that size whole. */
  flops(height: number, width: number): number {
    return countFlops(this.#graph, { batch: 1, [decoderNames.height]: height, [decoderNames.width]: width });
  }

  /** Loads the graph ahead of its first use. */
  async load(): Promise<void> {
    await this.#loaded();
  }

  /** Frees the graph and its weights; the next call loads them again. */
  async release(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await (await session)?.release();
  }

  async #run({ dims, data }: Planes): Promise<Planes> {
    const session = await this.#loaded();
    const feeds = { [decoderNames.latent]: { dtype: "float32", dims: [1, ...dims], data } as const };
    const { outputs } = await session.run({ feeds, fetch: [decoderNames.image] });
    const image = outputs[decoderNames.image];
    return { dims: image?.dims.slice(1) as unknown as Planes["dims"], data: image?.data as Float32Array };
  }

  #loaded(): Promise<Session> {
    if (!this.#session) {
      const loading = this.#engine.load(this.#file());
      this.#session = loading;
      loading.catch(() => {
        if (this.#session === loading) this.#session = undefined; // another call may try again
      });
    }
    return this.#session;
  }
}
