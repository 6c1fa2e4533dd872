import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openTokenizer } from "../../src/tokenizers/index.js";

const goldens = fileURLToPath(new URL("../goldens/tokenizers", import.meta.url));
const json = (path: string): unknown => JSON.parse(readFileSync(`${goldens}/${path}`, "utf8"));
const LENGTH = 77;

const texts = json("texts.json") as string[];
const folders = ["clip", "clip-sd2", "clip-sdxl", "clip-json", "clip-bare", "t5", "t5-json", "t5-identity"] as const;

describe.each(folders)("%s", (name) => {
  const expected = json(`${name}/expected.json`) as [tokens: number, ...ids: number[]][];

  test("gives the ids of transformers, padded and cut as it does", async () => {
    const tokenizer = await openTokenizer(nodeFolder(goldens), name);
    const wrong = texts.flatMap((text, i) => {
      const [tokens, ...ids] = expected[i] as [number, ...number[]];
      const padded = [...ids, ...new Array(LENGTH - ids.length).fill(tokenizer.padId)];
      const found = tokenizer.encode(text, LENGTH);
      const same =
        found.ids.length === LENGTH &&
        found.ids.every((id, k) => id === padded[k]) &&
        found.tokens === ids.length &&
        found.dropped === tokens - ids.length;
      return same ? [] : [{ text, expected: ids.join(" "), found: found.ids.slice(0, found.tokens).join(" ") }];
    });
    expect(wrong).toEqual([]);
  });
});
