import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { fromRgb, type RgbImage } from "../images/index.js";
import { parseConfig } from "../models/config.js";
import {
  type ClassifierHead,
  classifierConfigFromJson,
  classifierDistance,
  classifierNames,
  type ImageClassifierConfig,
  imageClassifier,
} from "../models/image-classifier.js";
import type { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import { weightedNetwork } from "../runtime/weighted-network.js";
import { type FolderSource, openCheckpoint } from "../weights/index.js";
import { parseJson } from "../weights/json.js";
import { fitMoments, type GaussianFit } from "./moments.js";
import { batchOf, runRows } from "./networks.js";

/** What a classifier says of an image. */
export interface Classified {
  /** The label of each head. */
  readonly labels: readonly string[];
  /** Means of the last two maps. */
  readonly features: readonly [Float32Array, Float32Array];
}

/** A prompt of a held-out picture, and what the picture shows, by head. */
export interface LabelledPrompt {
  readonly prompt: string;
  readonly labels: Readonly<Record<string, string>>;
}

const promptsSchema = z.array(z.strictObject({ prompt: z.string(), labels: z.record(z.string(), z.string()) }));
const PROMPTS = "heldout_prompts.json";

/** A classifier of avatars: names, features for Frechet distances, and a learned distance of two images. */
export class ImageClassifier {
  readonly heads: readonly ClassifierHead[];
  readonly imageSize: number;
  /** What to have models draw that are judged; none of a classifier of classes. */
  readonly prompts: readonly LabelledPrompt[];
  readonly #classify: Network;
  readonly #distance: Network;
  /** Of the held-out pictures of what the model was trained on, in each of the two maps. */
  readonly heldOut: readonly [GaussianFit, GaussianFit];

  private constructor(
    { heads, imageSize }: ImageClassifierConfig,
    networks: readonly [classify: Network, distance: Network],
    heldOut: readonly [GaussianFit, GaussianFit],
    prompts: readonly LabelledPrompt[],
  ) {
    this.prompts = prompts;
    this.heads = heads;
    this.imageSize = imageSize;
    [this.#classify, this.#distance] = networks;
    this.heldOut = heldOut;
  }

  /**
   * @internal
   * @param folder with `config.json`, `classifier.safetensors`, `heldout_statistics.safetensors`, and perhaps prompts
   * @throws FemoError E_FILE, E_CONFIG, E_WEIGHT if one of them is missing or damaged
   */
  static async open(folder: FolderSource, sessions: Sessions): Promise<ImageClassifier> {
    const file = `${folder.name}/config.json`;
    const config = classifierConfigFromJson(parseJson(await folder.readText("config.json"), file), file);
    const checkpoint = await openCheckpoint(folder, "classifier.safetensors");
    const classify = weightedNetwork(imageClassifier(config), checkpoint, sessions);
    const isHead = (name: string): boolean => /^(linear|heads)\./.test(name);
    const distance = weightedNetwork(classifierDistance(config), checkpoint, sessions, { ignore: isHead });
    const [heldOut, prompts] = [await heldOutOf(folder, config), await promptsOf(folder)];
    return new ImageClassifier(config, [classify, distance], heldOut, prompts);
  }

  /** @throws FemoError E_OPTION if an image is of another size; E_RUNTIME as `Session.run` */
  async classify(images: readonly RgbImage[]): Promise<Classified[]> {
    const logits = this.heads.map(({ name }) => classifierNames.logits(name));
    const outputs = [...logits, ...classifierNames.features];
    const rows = await runRows(this.#classify, { [classifierNames.image]: this.#batch(images) }, outputs);
    return images.map((_, i) => ({
      labels: this.heads.map(({ name, labels }) => {
        const row = rows[classifierNames.logits(name)]?.[i] as Float32Array;
        return labels[row.indexOf(Math.max(...row))] as string;
      }),
      features: classifierNames.features.map((name) => rows[name]?.[i]) as [Float32Array, Float32Array],
    }));
  }

  /** Of each image from the other one in its place; 0 of equal ones. @throws FemoError as `classify` */
  async distances(images: readonly RgbImage[], others: readonly RgbImage[]): Promise<number[]> {
    const feeds = {
      [classifierNames.image]: this.#batch(images),
      [classifierNames.other]: this.#batch(others),
    };
    const rows = await runRows(this.#distance, feeds, [classifierNames.distance]);
    return rows[classifierNames.distance].map((row) => row[0] as number);
  }

  #batch(images: readonly RgbImage[]) {
    const size = this.imageSize;
    const other = images.find(({ width, height }) => width !== size || height !== size);
    if (!other) return batchOf(images.map(fromRgb));
    throw new FemoError(
      "E_OPTION",
      `classifier: expected images of ${size}x${size} pixels, found ${other.width}x${other.height}`,
    );
  }
}

async function promptsOf(folder: FolderSource): Promise<readonly LabelledPrompt[]> {
  if (!(await folder.exists(PROMPTS))) return [];
  const file = `${folder.name}/${PROMPTS}`;
  return parseConfig(promptsSchema, parseJson(await folder.readText(PROMPTS), file), file, "list of prompts");
}

async function heldOutOf(
  folder: FolderSource,
  { widths }: ImageClassifierConfig,
): Promise<readonly [GaussianFit, GaussianFit]> {
  const [first, second] = widths.slice(-2) as [number, number];
  const d = first + second;
  const statistics = await openCheckpoint(folder, "heldout_statistics.safetensors");
  statistics.verify([
    { name: "mean", shape: [d] },
    { name: "covariance", shape: [d, d] },
  ]);
  const [mean, covariance] = [await statistics.readTensor("mean"), await statistics.readTensor("covariance")];
  const part = (start: number, size: number): Promise<GaussianFit> => {
    const data = new Float64Array(size * size);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) data[i * size + j] = covariance[(start + i) * d + start + j] as number;
    }
    return fitMoments({
      count: undefined,
      mean: Float64Array.from(mean.slice(start, start + size)),
      covariance: { rows: size, columns: size, data },
    });
  };
  return [await part(0, first), await part(first, second)];
}
