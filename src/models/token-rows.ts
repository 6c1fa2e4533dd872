import { FemoError } from "../errors.js";
import type { HostTensor } from "../runtime/engine.js";

/** Ids of the tokens of prompts, a row for each; all rows have the same length. */
export type TokenRows = readonly (readonly number[])[];

/**
 * Tokens as an encoder takes them, int64 [rows, tokens]. It is checked what ONNX Runtime would take amiss only in the middle
 * of a run, or not at all: ids below 0 count from the end.
 * @throws FemoError E_OPTION if rows differ in length, or have too many tokens or ids that the encoder does not know
 */
export function tokenTensor(rows: TokenRows, vocabSize: number, maxTokens = Number.POSITIVE_INFINITY): HostTensor {
  const lengths = [...new Set(rows.map((row) => row.length))];
  const [tokens = 0] = lengths;
  if (lengths.length !== 1 || tokens < 1 || tokens > maxTokens) {
    const wanted = maxTokens < Number.POSITIVE_INFINITY ? `of 1 to ${maxTokens} tokens` : "of one token or more";
    const found = lengths.length > 0 ? `rows of ${lengths.join(", ")}` : "none";
    throw new FemoError("E_OPTION", `tokens: expected rows of one length, ${wanted}, found ${found}`);
  }
  const stranger = rows.flat().find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (stranger !== undefined) {
    throw new FemoError(
      "E_OPTION",
      `tokens: the text encoder knows the ids 0 to ${vocabSize - 1}, found ${stranger}. Is the tokenizer the one that came with it?`,
    );
  }
  return integerTensor(rows);
}

/** Rows of one length as a tensor, int64. */
export const integerTensor = (rows: TokenRows): HostTensor => ({
  dtype: "int64",
  dims: [rows.length, rows[0]?.length ?? 0],
  data: BigInt64Array.from(rows.flat(), BigInt),
});
