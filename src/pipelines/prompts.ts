import { FemoError } from "../errors.js";
import type { HostTensor } from "../runtime/engine.js";
import type { Network } from "../runtime/network.js";
import type { Tokenizer } from "../tokenizers/index.js";
import type { ClipTextModel, T5EncoderModel } from "./text-encoders.js";

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

/** The most encodings that are kept, in bytes: 32 of T5-XXL's for 512 tokens. */
const MAX_KEPT_BYTES = 2 ** 28;
/** What a text encoder may take that stays loaded while the transformer's weights come, in bytes. */
const MAX_STAYING_BYTES = 2 ** 27;
/** Tokens that CLIP reads. */
const CLIP_TOKENS = 77;

/** Reads prompts with CLIP and T5, as FLUX does; each text is encoded once, and its encoding kept for a while. */
export class PromptEncoder {
  readonly #readers: PromptReaders;
  readonly #maxStayingBytes: number;
  readonly #kept = new Map<string, Promise<Float32Array>>();
  #keptBytes = 0;

  /** @param maxStayingBytes text encoders that take more are freed once a request's prompts are encoded */
  constructor(readers: PromptReaders, maxStayingBytes = MAX_STAYING_BYTES) {
    this.#readers = readers;
    this.#maxStayingBytes = maxStayingBytes;
  }

  /**
   * Encodes prompts one after the other: all that CLIP reads, then all that T5 reads, so that each is loaded once.
   * @param prompts of one `maxSequenceLength`
   * @returns the encodings, and a sentence for each text that was cut off
   * @throws the signal's reason if it was aborted; FemoError E_OPTION if a tokenizer is not that of its text encoder
   */
  async encode(
    prompts: readonly PromptTexts[],
    signal?: AbortSignal,
  ): Promise<{ readonly encoded: readonly EncodedPrompt[]; readonly notes: readonly string[] }> {
    const { tokenizer, textEncoder, tokenizer2, textEncoder2 } = this.#readers;
    const notes = new Set<string>();
    const read = async (
      reader: { name: string; tokenizer: Tokenizer; tokens: number; network: Network },
      texts: readonly string[],
      run: (ids: readonly number[]) => Promise<HostTensor>,
    ): Promise<Float32Array[]> => {
      const { name, tokenizer, tokens, network } = reader;
      const found: Float32Array[] = [];
      for (const text of texts) {
        signal?.throwIfAborted();
        const { ids, dropped, droppedText } = tokenizer.encode(text, tokens);
        if (dropped > 0) notes.add(cutNote(name, tokens, droppedText));
        found.push(await this.#once(`${name} ${tokens} ${text}`, async () => floatsOf(await run(ids))));
      }
      if (network.bytes > this.#maxStayingBytes) await network.release();
      return found;
    };
    const tokens = Math.min(CLIP_TOKENS, tokenizer.maxLength ?? CLIP_TOKENS);
    const pooled = await read(
      { name: "CLIP", tokenizer, tokens, network: textEncoder.network },
      prompts.map(({ prompt }) => prompt),
      async (ids) => (await textEncoder.encode([ids])).pooled,
    );
    const length = prompts[0]?.maxSequenceLength ?? 0;
    const states = await read(
      { name: "T5", tokenizer: tokenizer2, tokens: length, network: textEncoder2.network },
      prompts.map(({ prompt2 }) => prompt2),
      (ids) => textEncoder2.encode([ids]),
    );
    const encoded = prompts.map((_, i) => ({
      pooled: pooled[i] as Float32Array,
      states: states[i] as Float32Array,
    }));
    return { encoded, notes: [...notes] };
  }

  /** What was made before for the same key, or is being made; the oldest make room. */
  async #once(key: string, make: () => Promise<Float32Array>): Promise<Float32Array> {
    const known = this.#kept.get(key);
    if (known) return known;
    const made = make();
    this.#kept.set(key, made);
    try {
      this.#keptBytes += (await made).byteLength;
    } catch (error) {
      this.#kept.delete(key);
      throw error;
    }
    for (const [old, bytes] of this.#kept) {
      if (this.#keptBytes <= MAX_KEPT_BYTES || old === key) break;
      this.#kept.delete(old);
      this.#keptBytes -= (await bytes).byteLength;
    }
    return made;
  }
}

function floatsOf({ data }: HostTensor): Float32Array {
  if (data instanceof Float32Array) return data;
  throw new FemoError("E_RUNTIME", "a text encoder gave no float32 tensor");
}

const MAX_SHOWN = 60;

/** A sentence that says what was not read. */
function cutNote(encoder: string, tokens: number, dropped: string): string {
  const shown = dropped.length > MAX_SHOWN ? `${dropped.slice(0, MAX_SHOWN)}…` : dropped;
  const advice = encoder === "T5" ? "Give a larger maxSequenceLength, or a shorter prompt." : "T5 may read on.";
  return `A prompt was cut off: ${encoder} reads ${tokens} tokens, and left out ${JSON.stringify(shown)}. ${advice}`;
}
