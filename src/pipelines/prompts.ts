import { FemoError } from "../errors.js";
import type { HostTensor } from "../runtime/engine.js";
import type { Network } from "../runtime/network.js";
import type { Tokenizer } from "../tokenizers/index.js";

/** A text encoder with the tokenizer that it was trained with. */
export interface TextReader<Output extends string> {
  /** For messages: whose it is. */
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly network: Network;
  /** What the user can do about a text that was cut off. */
  readonly advice: string;
  /** What it makes of one text, each tensor with a first axis of 1. */
  run(ids: readonly number[]): Promise<Readonly<Record<Output, HostTensor>>>;
}

/** How a text was read: the tensors that its encoder gives, by name, without the axis of texts. */
export type Reading<Output extends string = string> = Readonly<Record<Output, Float32Array>>;

/** The most encodings that are kept, in bytes: 32 of T5-XXL's for 512 tokens. */
const MAX_KEPT_BYTES = 2 ** 28;
/** What a text encoder may take that stays loaded while the denoiser's weights come, in bytes. */
const MAX_STAYING_BYTES = 2 ** 27;

/** What text encoders made of texts: each is read once, and its encoding kept for a while. */
export class Readings {
  readonly #maxStayingBytes: number;
  readonly #kept = new Map<string, Promise<Reading>>();
  #keptBytes = 0;

  /** @param maxStayingBytes text encoders that take more are freed once a request's texts are read */
  constructor(maxStayingBytes = MAX_STAYING_BYTES) {
    this.#maxStayingBytes = maxStayingBytes;
  }

  /**
   * Reads texts one after the other.
   * @param tokens that the encoder reads of each, padding included
   * @param notes where a sentence goes for each text that was cut off
   * @throws the signal's reason if it was aborted; FemoError E_OPTION if the tokenizer is not that of the text encoder
   */
  async read<Output extends string>(
    reader: TextReader<Output>,
    texts: readonly string[],
    tokens: number,
    notes: Set<string>,
    signal?: AbortSignal,
  ): Promise<Reading<Output>[]> {
    const { name, tokenizer, network } = reader;
    const outputs = network.outputs.map((output) => output.name).join();
    const found: Reading<Output>[] = [];
    for (const text of texts) {
      signal?.throwIfAborted();
      const { ids, dropped, droppedText } = tokenizer.encode(text, tokens);
      if (dropped > 0) notes.add(cutNote(reader, tokens, droppedText));
      const key = `${name} ${outputs} ${tokens} ${text}`;
      found.push((await this.#once(key, async () => floatsOf(await reader.run(ids)))) as Reading<Output>);
    }
    if (network.bytes > this.#maxStayingBytes) await network.release();
    return found;
  }

  /** What was made before for the same key, or is being made; the oldest make room. */
  async #once(key: string, make: () => Promise<Reading>): Promise<Reading> {
    const known = this.#kept.get(key);
    if (known) return known;
    const made = make();
    this.#kept.set(key, made);
    try {
      this.#keptBytes += bytesOf(await made);
    } catch (error) {
      this.#kept.delete(key);
      throw error;
    }
    for (const [old, reading] of this.#kept) {
      if (this.#keptBytes <= MAX_KEPT_BYTES || old === key) break;
      this.#kept.delete(old);
      this.#keptBytes -= bytesOf(await reading);
    }
    return made;
  }
}

const bytesOf = (reading: Reading): number =>
  Object.values(reading).reduce((sum, { byteLength }) => sum + byteLength, 0);

const floatsOf = (tensors: Readonly<Record<string, HostTensor>>): Reading =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, { data }]) => {
      if (data instanceof Float32Array) return [name, data];
      throw new FemoError("E_RUNTIME", `a text encoder gave no float32 tensor ${name}`);
    }),
  );

const MAX_SHOWN = 60;

/** A sentence that says what was not read. */
function cutNote({ name, advice }: TextReader<string>, tokens: number, dropped: string): string {
  const shown = dropped.length > MAX_SHOWN ? `${dropped.slice(0, MAX_SHOWN)}…` : dropped;
  return `A prompt was cut off: ${name} reads ${tokens} tokens, and left out ${JSON.stringify(shown)}. ${advice}`;
}

/** Tokens that CLIP reads. */
const CLIP_TOKENS = 77;
/** The same where its tokenizer says less. */
export const clipTokens = ({ maxLength = CLIP_TOKENS }: Tokenizer): number => Math.min(CLIP_TOKENS, maxLength);
