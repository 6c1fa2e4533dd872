import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { memoryByteSource, readNpy, readNpz } from "../../src/weights/index.js";
import { femoError, guardedSource } from "./helpers.js";

const folder = fileURLToPath(new URL("../goldens/npz", import.meta.url));
const golden = (name: string): Uint8Array => Uint8Array.from(readFileSync(`${folder}/${name}`));
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8")) as Record<
  string,
  { shape: number[]; values: number[] }
>;

describe.each(["kinds.npz", "compressed.npz"])("%s, written by NumPy", (file) => {
  test("every type and order, in float64", async () => {
    const npz = await readNpz(memoryByteSource(file, golden(file)));
    expect(npz.names).toEqual(Object.keys(expected));
    for (const [name, { shape, values }] of Object.entries(expected)) {
      const found = await npz.array(name);
      expect(found.shape, name).toEqual(shape);
      expect([...found.values], name).toEqual(values);
      expect((await npz.header(name))?.shape).toEqual(shape);
    }
    expect(await npz.header("sigma")).toBeUndefined();
    expect(await femoError("E_FILE", () => npz.array("sigma"))).toContain('has no array "sigma"');
  });
});

test("rows of bytes, without the others", async () => {
  const source = guardedSource(golden("kinds.npz"));
  const npz = await readNpz(source);
  expect([...(await npz.byteRows("u1", 1, 2))]).toEqual([3, 100, 127]);
  expect([...(await npz.byteRows("u1", 0, 2))]).toEqual([0, 1, 2, 3, 100, 127]);
  for (const [name, start, end] of [
    ["u1", 1, 3],
    ["u1", -1, 1],
    ["f8", 0, 1],
    ["columns", 0, 1],
  ] as const) {
    expect(await femoError("E_FILE", () => npz.byteRows(name, start, end))).toContain("expected uncompressed bytes");
  }
  const compressed = await readNpz(memoryByteSource("c.npz", golden("compressed.npz")));
  expect(await femoError("E_FILE", () => compressed.byteRows("u1", 0, 1))).toContain("found compressed u1 [2, 3]");
});

test("arrays that are no real numbers are refused", async () => {
  const npz = await readNpz(memoryByteSource("o.npz", golden("others.npz")));
  for (const name of ["complex", "text"]) {
    expect(await femoError("E_FILE", () => npz.array(name))).toContain("real numbers");
  }
});

test("whatever the bytes, arrays or a FemoError", () =>
  fc.assert(
    fc.asyncProperty(
      fc.constantFrom(golden("kinds.npz"), golden("compressed.npz")),
      fc.array(fc.tuple(fc.nat(8000), fc.nat(255)), { maxLength: 4 }),
      fc.option(fc.nat(8000)),
      async (bytes, changes, cut) => {
        const changed = bytes.slice(0, cut === null ? bytes.length : cut % bytes.length);
        for (const [at, byte] of changes) if (changed.length > 0) changed[at % changed.length] = byte;
        try {
          const npz = await readNpz(guardedSource(changed));
          for (const name of npz.names) {
            const { shape, values } = await npz.array(name);
            expect(values.length).toBe(shape.reduce((a, b) => a * b, 1));
          }
        } catch (error) {
          if (!(error instanceof FemoError)) throw error;
          expect(error.message.length).toBeLessThan(2000);
        }
      },
    ),
    { numRuns: 600 },
  ));

describe("a header", () => {
  const npy = (text: string, data = 8, version = 1, length = text.length): Uint8Array => {
    const head = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0];
    const size = version === 1 ? [length & 255, length >> 8] : [length & 255, (length >> 8) & 255, 0, 0];
    return Uint8Array.from([...head, ...size, ...new TextEncoder().encode(text), ...new Array<number>(data).fill(0)]);
  };
  const right = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n";

  test("of version 1 and 2", () => {
    expect([...readNpy(npy(right), "a").values]).toEqual([0]);
    expect([...readNpy(npy(right, 8, 2), "a").values]).toEqual([0]);
  });

  test.each<[string, Uint8Array, string]>([
    ["nothing", new Uint8Array(0), "does not begin"],
    ["another version", npy(right, 8, 9), "found 9"],
    ["a header longer than the file", npy(right, 0, 1, 60_000), "cut off"],
    ["objects", npy(right.replace("<f8", "|O")), "real numbers"],
    ["no shape", npy(right.replace("shape", "form")), "shape and order"],
    ["more elements than bytes", npy(right.replace("1,", "99999999, 99999999999")), "as many bytes"],
    ["fewer elements than bytes", npy(right, 16), "as many bytes"],
    ["a type by a name that objects have", npy(right.replace("<f8", "<constructor")), "real numbers"],
  ])("that is wrong: %s", async (_, bytes, message) => {
    expect(await femoError("E_FILE", () => readNpy(bytes, "a.npy"))).toContain(message);
  });
});
