export { openTokenizer } from "./open.js";
export { type Encoding, idsWithoutPadding, type Tokenizer } from "./tokenizer.js";
export { wordPieceTokenizer } from "./word-piece.js";
