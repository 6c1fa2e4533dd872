export { openTokenizer } from "./open.js";
export type { Encoding, Tokenizer } from "./tokenizer.js";
export { wordPieceTokenizer } from "./word-piece.js";
