import { FemoError } from "../errors.js";
import { cropCentre, type Planes, type RgbImage, resizeBicubic } from "../images/index.js";
import {
  clipPooledPosition,
  clipTextEncoder,
  clipTextIgnores,
  clipTextNames,
  withClipTextNames,
} from "../models/clip-text.js";
import { type ClipConfig, clipVisionEncoder, clipVisionIgnores, clipVisionNames } from "../models/clip-vision.js";
import { integerTensor, tokenTensor } from "../models/token-rows.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import type { Checkpoint } from "../weights/index.js";
import { batchOf, runRows } from "./networks.js";

/** Levels 0 .. 255 as CLIP, and BLIP, take them: (level / 255 - mean) / std. */
const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;

/**
 * How levels become numbers. `twice-rescaled` divides by 255 once more, as the tool of some papers does by mistake: the
 * network then sees nearly black images, and scores are far too low. For comparing with what they print, and nothing else.
 */
export type ClipRescaling = "once" | "twice-rescaled";

export interface ClipInputOptions {
  /** Default: once. */
  readonly rescaling?: ClipRescaling | undefined;
  /**
   * Where the middle begins, of how many pixels are left over: transformers rounds half of them down, torchvision to the
   * nearest, halves to the even one. Default: as transformers.
   */
  readonly cropAt?: (leftOver: number) => number;
}

/**
 * Pixels for CLIP: the shortest side resized to `side` as Pillow does bicubic, the middle cut out, levels normalized.
 * @returns [3, side, side]
 */
export function clipInput(image: RgbImage, side: number, options: ClipInputOptions = {}): Planes {
  const { rescaling = "once", cropAt = (leftOver) => Math.floor(leftOver / 2) } = options;
  const shortest = Math.min(image.width, image.height);
  const scaled = (size: number): number => (size === shortest ? side : Math.trunc((side * size) / shortest));
  const resized = resizeBicubic(image, scaled(image.width), scaled(image.height));
  const { data } = cropCentre(resized, side, side, cropAt);
  const area = side * side;
  const white = rescaling === "once" ? 255 : 255 * 255;
  const planes = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (const c of [0, 1, 2] as const) {
      planes[c * area + i] = ((data[3 * i + c] as number) / white - MEAN[c]) / STD[c];
    }
  }
  return { dims: [3, side, side], data: planes };
}

/** Both encoders of a CLIP with their weights. */
export class Clip {
  /** @internal */
  readonly imageNetwork: Network;
  /** @internal */
  readonly textNetwork: Network;
  readonly #config: ClipConfig;

  /**
   * @internal
   * @param checkpoint of transformers' `CLIPModel`
   * @throws FemoError E_WEIGHT if it does not have exactly the two encoders' tensors
   */
  constructor(config: ClipConfig, checkpoint: Checkpoint, sessions: Sessions) {
    this.#config = config;
    this.imageNetwork = weightedNetwork(clipVisionEncoder(config.vision), checkpoint, sessions, {
      ignore: clipVisionIgnores,
    });
    const graph = clipTextEncoder(config.text, ["projected"]);
    const ignore = clipTextIgnores(config.text);
    this.textNetwork = weightedNetwork(graph, withClipTextNames(checkpoint), sessions, { ignore });
  }

  /** Pixels along a side of what it sees. */
  get imageSize(): number {
    return this.#config.vision.imageSize;
  }

  /** Ids that a text may have, begin and end included. */
  get maxTokens(): number {
    return this.#config.text.maxPositionEmbeddings;
  }

  /** Features of images, not normalized. @throws FemoError E_IMAGE if one is malformed; E_RUNTIME as `Session.run` */
  async imageFeatures(images: readonly RgbImage[], rescaling?: ClipRescaling): Promise<Float32Array[]> {
    const batch = batchOf(images.map((image) => clipInput(image, this.imageSize, { rescaling })));
    const { image, features } = clipVisionNames;
    return (await runRows(this.imageNetwork, { [image]: batch }, [features]))[features];
  }

  /** Features of texts, given by their ids, not normalized; all have as many. @throws FemoError E_OPTION as `tokenTensor`; E_RUNTIME as `Session.run` */
  async textFeatures(rows: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const { text } = this.#config;
    const ids = tokenTensor(rows, text.vocabSize, text.maxPositionEmbeddings);
    const pooledAt = integerTensor(rows.map((row) => [clipPooledPosition(row, text)]));
    const feeds = { [clipTextNames.ids]: ids, [clipTextNames.pooledAt]: pooledAt };
    return (await runRows(this.textNetwork, feeds, ["projected"])).projected;
  }
}

/** 100 cos of the angle between two features. */
export function clipScore(image: ArrayLike<number>, text: ArrayLike<number>): number {
  if (image.length !== text.length) {
    throw new FemoError(
      "E_OPTION",
      `CLIP score: expected features of one length, found ${image.length} and ${text.length}`,
    );
  }
  let [product, a, b] = [0, 0, 0];
  for (let i = 0; i < image.length; i++) {
    const [x, y] = [image[i] as number, text[i] as number];
    product += x * y;
    a += x * x;
    b += y * y;
  }
  return (100 * product) / Math.sqrt(a * b);
}
