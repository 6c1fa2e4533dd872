import {
  type ClipTextConfig,
  type ClipTextOutput,
  clipPooledPosition,
  clipTextEncoder,
  clipTextIgnores,
  clipTextNames,
  withClipTextNames,
} from "../models/clip-text.js";
import { isT5DecoderTensor, type T5Config, t5Encoder, t5Names, withT5Names } from "../models/t5.js";
import { integerTensor, type TokenRows, tokenTensor } from "../models/token-rows.js";
import type { HostTensor } from "../runtime/engine.js";
import type { Network, NetworkOptions } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import type { Checkpoint } from "../weights/index.js";

/** From tokens to what CLIP's text encoder makes of them. */
export class ClipTextModel<Output extends ClipTextOutput> {
  readonly network: Network;
  readonly #config: ClipTextConfig;

  /**
   * @param outputs what `encode` gives; weights that they do not need are not loaded
   * @param options `once` if few prompts are encoded before it is released
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the encoder's tensors, apart from the rest of a
   *   whole CLIP; E_FILE as `graphWriter`; E_GRAPH if there is no such hidden state
   */
  constructor(
    config: ClipTextConfig,
    checkpoint: Checkpoint,
    sessions: Sessions,
    outputs: readonly Output[],
    options: NetworkOptions = {},
  ) {
    const ignore = clipTextIgnores(config);
    const graph = clipTextEncoder(config, outputs);
    this.network = weightedNetwork(graph, withClipTextNames(checkpoint), sessions, { ...options, ignore });
    this.#config = config;
  }

  /**
   * @param rows begin and end of the text included, padded or not
   * @throws FemoError E_OPTION if rows differ in length, or have more tokens than the model has places for or others than it
   *   knows; E_RUNTIME as `Session.run`
   */
  async encode(rows: TokenRows): Promise<Readonly<Record<Output, HostTensor>>> {
    const { vocabSize, maxPositionEmbeddings } = this.#config;
    const ids = tokenTensor(rows, vocabSize, maxPositionEmbeddings);
    const pooledAt = integerTensor(rows.map((row) => [clipPooledPosition(row, this.#config)]));
    const pools = this.network.inputs.some(({ name }) => name === clipTextNames.pooledAt);
    const feeds = { [clipTextNames.ids]: ids, ...(pools && { [clipTextNames.pooledAt]: pooledAt }) };
    const { outputs } = await this.network.run({ feeds, fetch: this.network.outputs.map(({ name }) => name) });
    return outputs as Record<Output, HostTensor>;
  }
}

/** From tokens to the hidden states of T5's encoder. */
export class T5EncoderModel {
  readonly network: Network;
  readonly #config: T5Config;

  /**
   * @param options `once` if few prompts are encoded before it is released
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the encoder's tensors, apart from a decoder's; E_FILE
   *   as `graphWriter`
   */
  constructor(config: T5Config, checkpoint: Checkpoint, sessions: Sessions, options: NetworkOptions = {}) {
    const weights = withT5Names(checkpoint);
    this.network = weightedNetwork(t5Encoder(config), weights, sessions, { ...options, ignore: isT5DecoderTensor });
    this.#config = config;
  }

  /**
   * Hidden states, [rows, tokens, dModel].
   * @param rows padding included, which counts as any token
   * @throws FemoError E_OPTION if rows differ in length or have tokens that the model does not know; E_RUNTIME as
   *   `Session.run`
   */
  async encode(rows: TokenRows): Promise<HostTensor> {
    const feeds = { [t5Names.ids]: tokenTensor(rows, this.#config.vocabSize) };
    const { outputs } = await this.network.run({ feeds, fetch: [t5Names.hidden] });
    return outputs[t5Names.hidden] as HostTensor;
  }
}
