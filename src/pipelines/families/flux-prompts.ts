import type { Tokenizer } from "../../tokenizers/index.js";
import { clipTokens, Readings } from "../prompts.js";
import type { ClipTextModel, T5EncoderModel } from "../text-encoders.js";

/** What FLUX's transformer is told of a prompt. */
export interface EncodedPrompt {
  /** Of CLIP, its pooled token.  [D] */
  readonly pooled: Float32Array;
  /** Of T5, its hidden states.  [maxSequenceLength, D'] */
  readonly states: Float32Array;
}

/** A prompt as each of the two text encoders reads it. */
export interface PromptTexts {
  readonly prompt: string;
  readonly prompt2: string;
  /** Tokens that T5 reads, padding included. */
  readonly maxSequenceLength: number;
}

/** The parts that read prompts. */
export interface PromptReaders {
  readonly tokenizer: Tokenizer;
  readonly textEncoder: ClipTextModel<"pooled">;
  readonly tokenizer2: Tokenizer;
  readonly textEncoder2: T5EncoderModel;
}

/** Reads prompts with CLIP and T5, as FLUX does. */
export class PromptEncoder {
  readonly #readers: PromptReaders;
  readonly #readings: Readings;

  /** @param maxStayingBytes as of `Readings` */
  constructor(readers: PromptReaders, maxStayingBytes?: number) {
    this.#readers = readers;
    this.#readings = new Readings(maxStayingBytes);
  }

  /**
   * Encodes prompts: all that CLIP reads, then all that T5 reads, so that each is loaded once.
   * @param prompts of one `maxSequenceLength`
   * @returns the encodings, and a sentence for each text that was cut off
   * @throws as `Readings.read`
   */
  async encode(
    prompts: readonly PromptTexts[],
    signal?: AbortSignal,
  ): Promise<{ readonly encoded: readonly EncodedPrompt[]; readonly notes: readonly string[] }> {
    const { tokenizer, textEncoder, tokenizer2, textEncoder2 } = this.#readers;
    const notes = new Set<string>();
    const clip = {
      ...{ name: "CLIP", tokenizer, network: textEncoder.network, advice: "T5 may read on." },
      run: (ids: readonly number[]) => textEncoder.encode([ids]),
    };
    const t5 = {
      ...{ name: "T5", tokenizer: tokenizer2, network: textEncoder2.network },
      advice: "Give a larger maxSequenceLength, or a shorter prompt.",
      run: async (ids: readonly number[]) => ({ states: await textEncoder2.encode([ids]) }),
    };
    const [first, second] = [prompts.map(({ prompt }) => prompt), prompts.map(({ prompt2 }) => prompt2)];
    const pooled = await this.#readings.read(clip, first, clipTokens(tokenizer), notes, signal);
    const length = prompts[0]?.maxSequenceLength ?? 0;
    const states = await this.#readings.read(t5, second, length, notes, signal);
    const encoded = prompts.map((_, i) => ({
      pooled: pooled[i]?.pooled as Float32Array,
      states: states[i]?.states as Float32Array,
    }));
    return { encoded, notes: [...notes] };
  }
}
