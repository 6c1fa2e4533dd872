import { platform } from "#platform";
import { FemoError } from "../errors.js";
import { clipConfigFromJson } from "../models/clip-vision.js";
import type { InceptionOutput } from "../models/inception-v3.js";
import type { LpipsNet } from "../models/lpips.js";
import type { ConversionProgress, DownloadProgress, FoundFile, PublishedFile } from "../platform/platform.js";
import { Sessions } from "../runtime/sessions.js";
import { openTokenizer, type Tokenizer, wordPieceTokenizer } from "../tokenizers/index.js";
import {
  type Checkpoint,
  componentFiles,
  type FolderSource,
  filesOf,
  openCheckpoint,
  openComponent,
} from "../weights/index.js";
import { Clip, type ClipRescaling } from "./clip-score.js";
import { ImageClassifier } from "./image-classifier.js";
import { ImageReward } from "./image-reward.js";
import { Inception } from "./inception.js";
import { Lpips } from "./lpips.js";
import type { NetworkContext } from "./networks.js";
import {
  bertVocabularyFile,
  type ClipConvention,
  clipRepositories,
  imageRewardFile,
  inceptionFile,
  lpipsLayers,
  lpipsTrunks,
} from "./published.js";

/** Where weights are, and who watches. */
export interface MetricNetworkOptions {
  /**
   * Where the weights are: a folder that has the published files, one of them, or for CLIP a folder in transformers'
   * layout. Nothing is downloaded then. Default: they are downloaded once, and kept.
   */
  readonly weights?: string | undefined;
  /** Take weights of another hash than those that were published; `WeightHashes` say which they are. Default: no. */
  readonly anyWeights?: boolean | undefined;
  /** Where downloads are kept. Default: the platform's own places. */
  readonly cacheDir?: string | undefined;
  /** CPU threads of one operator. Default: one per physical core. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Of downloads. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Of the folding of batch norms. */
  readonly onConvert?: ((progress: ConversionProgress) => void) | undefined;
}

/** SHA-256 of the files that a network's weights are in, by their names: what a report says of them. */
export type WeightHashes = Readonly<Record<string, string>>;

/**
 * The networks of metrics, each opened when it is asked for, on an engine of their own. It is to be closed.
 *
 * All methods throw FemoError: E_FILE if a file is missing, damaged or another than was published; E_NETWORK, E_ACCESS if
 * it cannot be downloaded; E_WEIGHT if it has other tensors; the signal's reason if it was aborted.
 */
export class MetricNetworks {
  readonly #options: MetricNetworkOptions;
  readonly #context: NetworkContext;

  private constructor(options: MetricNetworkOptions, context: NetworkContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Starts the engine. @throws FemoError E_OPTION if an option is out of range */
  static async open(options: MetricNetworkOptions = {}): Promise<MetricNetworks> {
    const { threads, signal, onConvert } = options;
    return new MetricNetworks(options, {
      sessions: new Sessions(await platform.createEngine({ threads }), platform.graphMemory()),
      keep: (checkpoint) => platform.kept(checkpoint, { signal, onProgress: onConvert }),
    });
  }

  /** FID's network. */
  async inception<Output extends InceptionOutput>(
    outputs: readonly Output[],
  ): Promise<{ network: Inception<Output>; weights: WeightHashes }> {
    const { checkpoint, weights } = await this.#open(inceptionFile);
    return { network: await Inception.open(checkpoint, outputs, this.#context), weights };
  }

  /** LPIPS over a network of torchvision's. */
  async lpips(net: LpipsNet): Promise<{ network: Lpips; weights: WeightHashes }> {
    const trunk = await this.#open(lpipsTrunks[net]);
    const linear = await this.#open(lpipsLayers[net]);
    const network = await Lpips.open(net, trunk.checkpoint, linear.checkpoint, this.#context.sessions);
    return { network, weights: { ...trunk.weights, ...linear.weights } };
  }

  /** Both encoders of a CLIP, and its tokenizer. */
  async clip(
    convention: ClipConvention,
  ): Promise<{ network: Clip; tokenizer: Tokenizer; rescaling: ClipRescaling; weights: WeightHashes }> {
    const { weights: at, cacheDir, signal, onProgress } = this.#options;
    const find = { cacheDir, signal, onProgress, select: clipFiles };
    const { folder, file } = await platform.findModel(at ?? clipRepositories[convention], find);
    if (file !== undefined) {
      throw new FemoError(
        "E_FILE",
        `${folder.name}/${file}: expected a folder of CLIP in transformers' layout, with config.json and the tokenizer, ` +
          `found a file. Give the folder of "${clipRepositories[convention]}".`,
      );
    }
    const { config, checkpoint } = await openComponent(folder, ".");
    const network = new Clip(
      clipConfigFromJson(config, `${folder.name}/config.json`),
      checkpoint,
      this.#context.sessions,
    );
    const tokenizer = await openTokenizer(folder, ".");
    const rescaling = convention === "L/14-twice-rescaled" ? "twice-rescaled" : "once";
    return { network, tokenizer, rescaling, weights: await this.#hashes(checkpoint) };
  }

  /** ImageReward, and the tokenizer of its prompts. */
  async imageReward(): Promise<{ network: ImageReward; tokenizer: Tokenizer; weights: WeightHashes }> {
    const { checkpoint, weights } = await this.#open(imageRewardFile);
    const network = await ImageReward.open(checkpoint, this.#context.sessions);
    const vocabulary = await this.#find(bertVocabularyFile, this.#options.weights);
    const text = await vocabulary.folder.readText(vocabulary.path);
    const tokenizer = wordPieceTokenizer(text, {
      more: ["[DEC]", "[ENC]"],
      file: `${vocabulary.folder.name}/${vocabulary.path}`,
    });
    return { network, tokenizer, weights: { ...weights, [bertVocabularyFile.name]: vocabulary.sha256 } };
  }

  /** A classifier of avatars by the name of its embedded folder; `weights` is another folder with the same files. */
  async classifier(name: string): Promise<ImageClassifier> {
    const file = { name: "config.json", sha256: undefined, from: { embedded: name } };
    const { folder } = await this.#find(file, this.#options.weights);
    return ImageClassifier.open(folder, this.#context.sessions);
  }

  /** Ends the engine. */
  close(): Promise<void> {
    return this.#context.sessions.engine.close();
  }

  #find(file: PublishedFile, at: string | undefined): Promise<FoundFile> {
    const { cacheDir, signal, onProgress, anyWeights = false } = this.#options;
    const wanted = anyWeights && at !== undefined ? { ...file, sha256: undefined } : file;
    return platform.findFile(wanted, { at, cacheDir, signal, onProgress });
  }

  async #open(
    file: PublishedFile,
    at = "embedded" in file.from ? undefined : this.#options.weights,
  ): Promise<{ checkpoint: Checkpoint; weights: WeightHashes }> {
    const { folder, path, sha256 } = await this.#find(file, at);
    return { checkpoint: await openCheckpoint(folder, path), weights: { [file.name]: sha256 } };
  }

  async #hashes(checkpoint: Checkpoint): Promise<WeightHashes> {
    const files = [...new Set(checkpoint.tensors().flatMap(filesOf))];
    const hashes: [string, string][] = [];
    for (const file of files) {
      const name = file.slice(Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")) + 1);
      hashes.push([name, await platform.sha256(file, this.#options.signal)]);
    }
    return Object.fromEntries(hashes);
  }
}

/** What of a repository of CLIP is needed: weights, config, tokenizer. */
async function clipFiles(folder: FolderSource): Promise<string[]> {
  const files = await componentFiles(folder, ".");
  for (const file of [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
  ]) {
    if (await folder.exists(file)) files.push(file);
  }
  return files;
}
