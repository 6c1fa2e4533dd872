import { FemoError } from "../errors.js";
import type { Platform } from "../platform/platform.js";
import { openTokenizer, type Tokenizer } from "../tokenizers/index.js";
import {
  type Checkpoint,
  componentFiles,
  type FolderSource,
  type ModelComponent,
  openCheckpoint,
  openComponent,
} from "../weights/index.js";
import type { PretrainedOptions } from "./pretrained-options.js";

/** The options that give parts which a model file does not have. */
export type PartOption = "vae" | "textEncoder" | "textEncoder2" | "tokenizer" | "tokenizer2";

/** A part as a model file may have it beside the network. */
export interface PartOfFile {
  isThere(file: Checkpoint): boolean;
  /** Config and weights. */
  open(file: Checkpoint): ModelComponent | Promise<ModelComponent>;
}

/** Opens the parts of a model that is given in several files or folders. */
export class PartFiles {
  readonly #options: PretrainedOptions;
  readonly #platform: Platform;

  constructor(options: PretrainedOptions, platform: Platform) {
    this.#options = options;
    this.#platform = platform;
  }

  /**
   * The part that an option gives: the component itself, a pipeline that has it, or a file of its weights alone.
   * @param component its folder in a pipeline
   * @param ofFile config and weights of a file; without it files are refused
   * @returns undefined if the option is not given
   * @throws FemoError E_FILE, E_CONFIG, E_WEIGHT if there is no such part; what `Platform.findModel` throws
   */
  async component(
    option: Exclude<PartOption, "tokenizer" | "tokenizer2">,
    component: string,
    ofFile?: (checkpoint: Checkpoint) => ModelComponent | Promise<ModelComponent>,
  ): Promise<ModelComponent | undefined> {
    const path = this.#options[option];
    if (path === undefined) return undefined;
    const { variant } = this.#options;
    const { folder, file, place } = await this.#find(path, component);
    if (file === undefined) return openComponent(folder, place, { variant });
    if (ofFile) return ofFile(await openCheckpoint(folder, file));
    throw new FemoError("E_OPTION", `${option}: expected a folder or a repository on the Hub, found the file ${path}`);
  }

  /**
   * The part that an option gives, else the one that the model file has.
   * @param words what it is
   * @param example of a pipeline that has it, to be said after "such as"
   * @throws FemoError E_OPTION if there is neither; what `component` throws
   */
  async componentOr(
    option: Exclude<PartOption, "tokenizer" | "tokenizer2">,
    component: string,
    { file, part, words, example }: { file: Checkpoint; part: PartOfFile; words: string; example?: string },
  ): Promise<ModelComponent> {
    const found =
      (await this.component(option, component, part.open)) ?? (part.isThere(file) && (await part.open(file)));
    if (found) return found;
    throw new FemoError(
      "E_OPTION",
      `${option}: expected the ${words}, which ${file.name} does not have: a file, a folder or a repository on the Hub, of ` +
        `the part alone or of a pipeline${example === undefined ? "" : ` such as "${example}"`}; found nothing`,
    );
  }

  /**
   * A tokenizer: the folder itself, or that of a pipeline.
   * @throws FemoError E_OPTION if the option is not given, E_FILE or E_CONFIG if there is no tokenizer
   */
  async tokenizer(option: "tokenizer" | "tokenizer2", component: string): Promise<Tokenizer> {
    const path = this.#options[option] ?? this.#options.tokenizer;
    if (path === undefined) {
      throw new FemoError(
        "E_OPTION",
        `${option}: expected where the tokenizer is, as files of weights have none: the folder or the repository of a ` +
          'pipeline, such as "black-forest-labs/FLUX.1-schnell", or of the tokenizer alone; found nothing',
      );
    }
    const { folder, file, place } = await this.#find(path, component);
    if (file === undefined) return openTokenizer(folder, place);
    throw new FemoError("E_OPTION", `${option}: expected a folder or a repository on the Hub, found the file ${path}`);
  }

  async #find(path: string, component: string) {
    const { variant, cacheDir, token, signal, onProgress } = this.#options;
    const place = async (folder: FolderSource): Promise<string> =>
      (await folder.exists("model_index.json")) ? component : ".";
    const select = async (folder: FolderSource): Promise<string[]> => {
      const inside = await place(folder);
      const files = await componentFiles(folder, inside, { variant });
      return [...(inside === "." ? [] : ["model_index.json"]), ...files];
    };
    const { folder, file } = await this.#platform.findModel(path, { cacheDir, token, signal, onProgress, select });
    return { folder, file, place: file === undefined ? await place(folder) : "." };
  }
}
