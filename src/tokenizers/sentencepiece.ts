import { FemoError } from "../errors.js";
import { readCharsmap } from "./charsmap.js";
import { MAX_IDS, specialToken, type TokenSpec } from "./config.js";
import { piecesOf, type UnigramFile } from "./vocabularies.js";

// Numbers of fields in sentencepiece_model.proto.
const MODEL = { pieces: 1, trainer: 2, normalizer: 3 } as const;
const PIECE = { text: 1, score: 2, type: 3 } as const;
const TRAINER = { modelType: 3 } as const;
const NORMALIZER = { charsmap: 2 } as const;
const UNIGRAM = 1;
const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4 } as const;

/** How many `<extra_id_...>` T5 has behind SentencePiece's pieces, the last one first. */
const EXTRA_IDS = 100;

/**
 * The vocabulary of T5 from a model of SentencePiece, spiece.model: a message of protocol buffers.
 * @throws FemoError E_CONFIG if it is malformed or not a unigram model
 */
export function readSentencePiece(model: Uint8Array, file: string): UnigramFile {
  const fail = (problem: string): never => {
    throw new FemoError(
      "E_CONFIG",
      `${file}: ${problem}. Download the file again, or add tokenizer.json, which is read first.`,
    );
  };
  const malformed = () => fail("no model of SentencePiece, or cut off");
  const vocab: [string, number][] = [];
  const added: TokenSpec[] = [];
  let unknownId: number | undefined;
  let modelType = UNIGRAM;
  let charsmap: Uint8Array | undefined;
  for (const { field, bytes = NONE } of fieldsOf(model, malformed)) {
    if (field === MODEL.pieces) {
      const { text, score, type } = readPiece(bytes, malformed);
      if (text === undefined) fail(`expected UTF-8, found other bytes in piece ${vocab.length}`);
      else if (type === TYPE.unknown) unknownId = vocab.length;
      else if ((type === TYPE.control || type === TYPE.userDefined) && text !== "") added.push(specialToken(text));
      if (vocab.push([text ?? "", score]) > MAX_IDS) fail(`expected at most ${MAX_IDS} pieces`);
    } else if (field === MODEL.trainer) {
      modelType = lastOf(TRAINER.modelType, bytes, malformed)?.number ?? modelType;
    } else if (field === MODEL.normalizer) {
      charsmap = lastOf(NORMALIZER.charsmap, bytes, malformed)?.bytes ?? charsmap;
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

const NONE = new Uint8Array(0);

/** A piece; its text is undefined if it is no UTF-8. */
function readPiece(message: Uint8Array, malformed: () => never) {
  const text = lastOf(PIECE.text, message, malformed)?.bytes ?? NONE;
  const score = lastOf(PIECE.score, message, malformed)?.bytes;
  return {
    text: utf8(text),
    score: score?.length === 4 ? new DataView(score.buffer, score.byteOffset).getFloat32(0, true) : 0,
    type: lastOf(PIECE.type, message, malformed)?.number ?? TYPE.normal,
  };
}

/** A field of a message that counts once; of several the last counts, as protocol buffers have it. */
function lastOf(field: number, message: Uint8Array, malformed: () => never): Field | undefined {
  let last: Field | undefined;
  for (const each of fieldsOf(message, malformed)) if (each.field === field) last = each;
  return last;
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
