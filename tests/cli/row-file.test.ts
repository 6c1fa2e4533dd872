import { appendFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { digestOf, RowFile } from "../../src/cli/row-file.js";
import { temporaryFolder } from "../metrics/weight-file.js";

const root = temporaryFolder();
const before = process.env.FEMO_CACHE;
beforeAll(() => {
  process.env.FEMO_CACHE = root;
});
afterAll(() => {
  if (before === undefined) delete process.env.FEMO_CACHE;
  else process.env.FEMO_CACHE = before;
});

const files = (): string[] => readdirSync(join(root, "metrics")).map((name) => join(root, "metrics", name));
const row = (...values: number[]): Float32Array => Float32Array.from(values);

test("rows are there again, up to the first that was cut off or damaged", async () => {
  const open = (...kind: string[]) => RowFile.open(["kind", ...kind], 2, "float32");
  const first = await open();
  await first.add([
    [digestOf("a"), row(1, 2)],
    [digestOf("b"), row(3, Number.NaN)],
  ]);
  // A second process gets a file of its own.
  const second = await open();
  expect(await second.get(digestOf("a"))).toBeUndefined();
  await second.close();
  await first.add([[digestOf("c"), row(5, 6)]]);
  await first.close();

  const [path] = files().sort((a, b) => readFileSync(b).length - readFileSync(a).length) as [string];
  appendFileSync(path, "half a row");
  const again = await open();
  expect(await again.get(digestOf("a"))).toEqual(row(1, 2));
  expect(await again.get(digestOf("b"))).toEqual(row(3, Number.NaN));
  expect(await again.get(digestOf("d"))).toBeUndefined();
  await again.add([[digestOf("d"), row(7, 8)]]);
  expect(await again.get(digestOf("d"))).toEqual(row(7, 8));
  await again.close();

  const [whole] = files() as [string];
  const bytes = readFileSync(whole);
  const damaged = Buffer.from(bytes);
  damaged[bytes.length / 2 + 3] = (damaged[bytes.length / 2 + 3] as number) ^ 1;
  writeFileSync(whole, damaged);
  const last = await open();
  expect(await last.get(digestOf("a"))).toEqual(row(1, 2));
  expect(await last.get(digestOf("d"))).toBeUndefined();
  await last.close();
  const other = await open("other");
  expect(await other.get(digestOf("a"))).toBeUndefined();
  await other.close();
});
