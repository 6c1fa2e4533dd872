import { FemoError } from "../errors.js";
import { readCharsmap } from "./charsmap.js";
import { specialToken, type TokenSpec } from "./config.js";
import { piecesOf, type UnigramFile } from "./vocabularies.js";

// Numbers of fields in sentencepiece_model.proto.
const MODEL = { pieces: 1, trainer: 2, normalizer: 3 } as const;
const PIECE = { text: 1, score: 2, type: 3 } as const;
const TRAINER = { modelType: 3 } as const;
const NORMALIZER = { charsmap: 2 } as const;
const UNIGRAM = 1;
const TYPE = { unknown: 2, control: 3, userDefined: 4 } as const;

/** How many `<extra_id_...>` T5 has behind SentencePiece's pieces, the last one first. */
const EXTRA_IDS = 100;

/**
 * The vocabulary of T5 from a model of SentencePiece, spiece.model: a message of protocol buffers.
 * @throws FemoError E_CONFIG if it is malformed or not a unigram model
 */
export function readSentencePiece(bytes: Uint8Array, file: string): UnigramFile {
  const fail = (problem: string): never => {
    throw new FemoError(
      "E_CONFIG",
      `${file}: ${problem}. Download the file again, or add tokenizer.json, which is read first.`,
    );
  };
  const fields = (message: Uint8Array) => fieldsOf(message, () => fail("no model of SentencePiece, or cut off"));
  const vocab: [string, number][] = [];
  const added: TokenSpec[] = [];
  let unknownId: number | undefined;
  let modelType = UNIGRAM;
  let charsmap: Uint8Array | undefined;
  for (const { field, bytes: message } of fields(bytes)) {
    if (message === undefined) continue;
    if (field === MODEL.pieces) {
      let [text, score, type] = ["", 0, 1];
      for (const { field, bytes, number } of fields(message)) {
        if (field === PIECE.text && bytes) text = utf8(bytes) ?? fail(`piece ${vocab.length} is no UTF-8`);
        if (field === PIECE.score && bytes?.length === 4)
          score = new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
        if (field === PIECE.type) type = number ?? type;
      }
      if (type === TYPE.unknown) unknownId = vocab.length;
      if ((type === TYPE.control || type === TYPE.userDefined) && text !== "") added.push(specialToken(text));
      vocab.push([text, score]);
    } else if (field === MODEL.trainer) {
      for (const { field, number } of fields(message)) if (field === TRAINER.modelType) modelType = number ?? modelType;
    } else if (field === MODEL.normalizer) {
      for (const { field, bytes } of fields(message)) if (field === NORMALIZER.charsmap) charsmap = bytes;
    }
  }
  if (modelType !== UNIGRAM) fail(`expected a unigram model, as T5 has it, found model type ${modelType}`);
  for (let i = EXTRA_IDS - 1; i >= 0; i--) vocab.push([`<extra_id_${i}>`, 0]);
  return {
    kind: "t5",
    pieces: piecesOf(vocab, `${file}: pieces`),
    unknownId: unknownId ?? fail("none of its pieces stands for what is unknown"),
    normalize: charsmap?.length ? readCharsmap(charsmap, `${file}: normalizer_spec.precompiled_charsmap`) : undefined,
    added,
  };
}

function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A field of a message: a number that is stored as a varint, or the bytes of anything else. */
interface Field {
  readonly field: number;
  readonly number?: number;
  readonly bytes?: Uint8Array;
}

/** The fields of a message of protocol buffers, in their order; groups, which nobody writes any more, are malformed. */
function* fieldsOf(message: Uint8Array, malformed: () => never): Generator<Field, void> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70; scale *= 128) {
      const byte = message[at++] ?? malformed();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    return malformed();
  };
  const take = (length: number): Uint8Array => {
    if (length > message.length - at) malformed();
    at += length;
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield { field, number: varint() };
        break;
      case 1:
        yield { field, bytes: take(8) };
        break;
      case 2:
        yield { field, bytes: take(varint()) };
        break;
      case 5:
        yield { field, bytes: take(4) };
        break;
      default:
        malformed();
    }
  }
}
