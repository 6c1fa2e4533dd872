import { FemoError } from "../../errors.js";
import type { ClipTextConfig, ClipTextOutput } from "../../models/clip-text.js";
import type { Sessions } from "../../runtime/sessions.js";
import type { Tokenizer } from "../../tokenizers/index.js";
import type { Checkpoint } from "../../weights/index.js";
import { clipTokens, Readings, type TextReader } from "../prompts.js";
import { ClipTextModel } from "../text-encoders.js";

/** What the U-Net is told of a prompt. */
export interface EncodedPrompt {
  /** Hidden states of all encoders, side by side.  [77, D] */
  readonly states: Float32Array;
  /** Of XL, the last encoder's pooled token through its projection.  [P] */
  readonly pooled: Float32Array | undefined;
}

/** A prompt as the text encoders read it. */
export interface PromptTexts {
  readonly prompt: string;
  /** What the second of two encoders reads. */
  readonly prompt2: string;
  /** So many layers at the encoder's end are left out, beyond those that the model never uses. */
  readonly clipSkip: number | undefined;
}

/** A text encoder of a pipeline, by the option's or the folder's name. */
export interface ClipPart {
  readonly tokenizer: Tokenizer;
  readonly config: ClipTextConfig;
  readonly checkpoint: Checkpoint;
}

/** One encoder, which gives what is behind its last norm; or XL's, which give what their last layer but one does. */
export interface ClipParts {
  readonly first?: ClipPart;
  readonly second?: ClipPart;
}

/** Reads prompts with CLIP's text encoder, or with both of SDXL's, or the second alone as its refiner does. */
export class ClipPromptEncoder {
  readonly #parts: ClipParts;
  readonly #sessions: Sessions;
  readonly #readings: Readings;
  readonly #models = new Map<string, ClipTextModel<ClipTextOutput>>();

  /** @param maxStayingBytes as of `Readings` */
  constructor(parts: ClipParts, sessions: Sessions, maxStayingBytes?: number) {
    this.#parts = parts;
    this.#sessions = sessions;
    this.#readings = new Readings(maxStayingBytes);
    // Weights that do not fit are found when the model is opened.
    for (const [name, part] of this.#all()) this.#model(name, part, this.#outputs(name, undefined));
  }

  /** Tokens of a prompt, and the width of what is made of each. */
  get dims(): readonly [tokens: number, width: number] {
    const all = this.#all();
    const tokens = Math.min(...all.map(([, { tokenizer }]) => clipTokens(tokenizer)));
    return [tokens, all.reduce((sum, [, { config }]) => sum + config.hiddenSize, 0)];
  }

  /** The most that `clipSkip` may be. */
  get maxClipSkip(): number {
    const used = this.#parts.second ? 2 : 1;
    return Math.min(...this.#all().map(([, { config }]) => config.numHiddenLayers)) - used;
  }

  /**
   * Encodes prompts, encoder by encoder, so that each is loaded once.
   * @returns the encodings, and a sentence for each text that was cut off
   * @throws as `Readings.read`
   */
  async encode(
    prompts: readonly PromptTexts[],
    signal?: AbortSignal,
  ): Promise<{ readonly encoded: readonly EncodedPrompt[]; readonly notes: readonly string[] }> {
    const notes = new Set<string>();
    const [tokens, width] = this.dims;
    const states = prompts.map(() => new Float32Array(tokens * width));
    const pooled: (Float32Array | undefined)[] = [];
    let at = 0;
    for (const [name, part] of this.#all()) {
      for (const clipSkip of new Set(prompts.map((prompt) => prompt.clipSkip))) {
        const own = prompts.flatMap((prompt, i) => (prompt.clipSkip === clipSkip ? [i] : []));
        const outputs = this.#outputs(name, clipSkip);
        const texts = own.map((i) => (prompts[i] as PromptTexts)[name === "second" ? "prompt2" : "prompt"]);
        const read = await this.#readings.read(this.#reader(name, part, outputs), texts, tokens, notes, signal);
        for (const [k, i] of own.entries()) {
          const [hidden, projected] = outputs.map((output) => read[k]?.[output] as Float32Array);
          place(states[i] as Float32Array, hidden as Float32Array, at, width);
          if (projected) pooled[i] = projected;
        }
      }
      at += part.config.hiddenSize;
    }
    return { encoded: states.map((rows, i) => ({ states: rows, pooled: pooled[i] })), notes: [...notes] };
  }

  #all(): ["first" | "second", ClipPart][] {
    return (["first", "second"] as const).flatMap((name) => {
      const part = this.#parts[name];
      return part ? [[name, part]] : [];
    });
  }

  /** What is taken of an encoder: hidden states, and of the second of XL the projected token. */
  #outputs(name: "first" | "second", clipSkip: number | undefined): ClipTextOutput[] {
    if (!this.#parts.second) {
      return [clipSkip ? `normed_hidden_states[${-(clipSkip + 1)}]` : "last_hidden_state"];
    }
    return [`hidden_states[${-((clipSkip ?? 0) + 2)}]`, ...(name === "second" ? (["projected"] as const) : [])];
  }

  #reader(name: "first" | "second", part: ClipPart, outputs: ClipTextOutput[]): TextReader<ClipTextOutput> {
    const model = this.#model(name, part, outputs);
    return {
      name: name === "second" && this.#parts.first ? "the second text encoder" : "CLIP",
      tokenizer: part.tokenizer,
      network: model.network,
      advice: "Give a shorter prompt.",
      run: (ids) => model.encode([ids]),
    };
  }

  #model(name: string, { config, checkpoint }: ClipPart, outputs: ClipTextOutput[]): ClipTextModel<ClipTextOutput> {
    const key = `${name} ${outputs}`;
    const known = this.#models.get(key);
    if (known) return known;
    const model = new ClipTextModel(config, checkpoint, this.#sessions, outputs, { once: true });
    this.#models.set(key, model);
    return model;
  }
}

/** Puts the rows of an encoder beside those of the ones before it. */
function place(all: Float32Array, rows: Float32Array, at: number, width: number): void {
  const tokens = all.length / width;
  const own = rows.length / tokens;
  if (!Number.isInteger(own)) {
    throw new FemoError("E_RUNTIME", `a text encoder gave ${rows.length} numbers for ${tokens} tokens`);
  }
  for (let i = 0; i < tokens; i++) all.set(rows.subarray(i * own, (i + 1) * own), i * width + at);
}
