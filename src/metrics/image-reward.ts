import { FemoError } from "../errors.js";
import type { RgbImage } from "../images/index.js";
import {
  type ImageRewardConfig,
  imageReward,
  imageRewardConfig,
  imageRewardIgnores,
  imageRewardNames,
  REWARD_LAYERS,
  rewardTensors,
} from "../models/image-reward.js";
import { tokenTensor } from "../models/token-rows.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import { roundHalfEven } from "../samplers/index.js";
import type { Checkpoint } from "../weights/index.js";
import { clipInput } from "./clip-score.js";
import { batchOf, runRows } from "./networks.js";

/** Of the rewards that it was trained on. */
const [MEAN, DEVIATION] = [0.16717362830052426, 1.0333394966054072];

/** As torchvision cuts out the middle. */
const cropAt = (leftOver: number): number => roundHalfEven(leftOver / 2);

/** Ids of a prompt, begin and end included; what is behind them is cut off. */
export const REWARD_TOKENS = 35;

/** A linear function of the last state, in float64. */
interface Head {
  readonly weights: Float64Array;
  readonly bias: number;
}

/** ImageReward 1.0 with its weights. */
export class ImageReward {
  /** @internal */
  readonly network: Network;
  readonly #config: ImageRewardConfig;
  readonly #head: Head;

  private constructor(network: Network, config: ImageRewardConfig, head: Head) {
    this.network = network;
    this.#config = config;
    this.#head = head;
  }

  /**
   * @internal
   * @param checkpoint of the release
   * @throws FemoError E_WEIGHT if it does not have exactly the network's tensors
   */
  static async open(
    checkpoint: Checkpoint,
    sessions: Sessions,
    config: ImageRewardConfig = imageRewardConfig,
  ): Promise<ImageReward> {
    checkpoint.verify(rewardTensors(config.text.width), { ignore: () => true });
    const network = weightedNetwork(imageReward(config), checkpoint, sessions, { ignore: imageRewardIgnores });
    return new ImageReward(network, config, await foldHead(checkpoint));
  }

  /**
   * How well an image, of any size, shows what a prompt says: about 0 on average, 1 is good.
   * @param ids of the prompt, as BERT's tokenizer makes them
   * @throws FemoError E_OPTION if the network does not know an id; E_RUNTIME as `Session.run`
   */
  async reward(image: RgbImage, ids: readonly number[]): Promise<number> {
    const [state] = await this.states([image], [ids]);
    const { weights, bias } = this.#head;
    const raw = weights.reduce((sum, w, i) => sum + w * (state?.[i] as number), bias);
    return (raw - MEAN) / DEVIATION;
  }

  /** What the network makes of the first token of each pair. @param rows of one length */
  async states(images: readonly RgbImage[], rows: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const { image: vit, text } = this.#config;
    if (images.length !== rows.length) {
      throw new FemoError("E_OPTION", `ImageReward: ${images.length} images and ${rows.length} prompts do not pair up`);
    }
    const { image, ids, state } = imageRewardNames;
    const feeds = {
      [image]: batchOf(images.map((one) => clipInput(one, vit.size, { cropAt }))),
      [ids]: tokenTensor(rows, text.vocabulary, text.places),
    };
    return (await runRows(this.network, feeds, [state]))[state];
  }
}

/** Linear layers without anything between them are one: w_n ... w_1 x + b. */
async function foldHead(checkpoint: Checkpoint): Promise<Head> {
  let weights = Float64Array.of(1);
  let bias = 0;
  for (const [place] of REWARD_LAYERS.toReversed()) {
    const matrix = await checkpoint.readTensor(`mlp.layers.${place}.weight`); // [out, in]
    const biases = await checkpoint.readTensor(`mlp.layers.${place}.bias`);
    bias += weights.reduce((sum, w, i) => sum + w * (biases[i] as number), 0);
    const inputs = matrix.length / weights.length;
    const outer = weights;
    weights = Float64Array.from({ length: inputs }, (_, j) =>
      outer.reduce((sum, w, i) => sum + w * (matrix[i * inputs + j] as number), 0),
    );
  }
  return { weights, bias };
}
