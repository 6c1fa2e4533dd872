import { readFileSync } from "node:fs";
import fc from "fast-check";
import { encode } from "fast-png";
import { zlibSync } from "fflate";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { type Chunk, readChunks, writeChunks } from "../../src/images/chunks.js";
import { decodePng, encodePng, type RgbImage } from "../../src/images/index.js";
import { anyCharacter } from "../unicode.js";

interface Golden {
  name: string;
  width: number;
  height: number;
  text: Record<string, string>;
  png: string;
  rgb: string;
}

const goldens: Golden[] = JSON.parse(readFileSync(new URL("../goldens/png.json", import.meta.url), "utf8"));
const fromBase64 = (text: string) => Uint8Array.from(Buffer.from(text, "base64"));

const someImage: RgbImage = {
  width: 21,
  height: 13,
  data: Uint8Array.from({ length: 21 * 13 * 3 }, (_, i) => (i * i) % 251),
};

const anyImage = fc
  .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 20 }))
  .chain(([width, height]) =>
    fc
      .uint8Array({ minLength: 3 * width * height, maxLength: 3 * width * height })
      .map((data): RgbImage => ({ width, height, data: Uint8Array.from(data) })),
  );
const anyText = fc.string({ unit: anyCharacter, maxLength: 60 }).map((text) => text.replaceAll("\0", "?"));
const anyKeyword = fc.stringMatching(/^[!-~¡-ÿ]{1,30}( [!-~¡-ÿ]{1,30})?$/);

const refused = (code: string, message = /./) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe("round trip", () => {
  test("pixels and any Unicode text", () => {
    fc.assert(
      fc.property(anyImage, fc.array(fc.tuple(anyKeyword, anyText), { maxLength: 4 }), (image, entries) => {
        const text = Object.fromEntries(entries);
        expect(decodePng(encodePng(image, { text }))).toEqual({ image, text });
      }),
      { numRuns: 200 },
    );
  });

  test.each(["\u0080\u009f\u00ff", "\r\n\t", "\ufeffbyte order mark", "", "x".repeat(100_000), "狐".repeat(10_000)])(
    "text that other decoders change: %j",
    (text) => {
      expect(decodePng(encodePng(someImage, { text: { parameters: text } })).text).toEqual({ parameters: text });
    },
  );

  test("a keyword may be the name of a property of objects", () => {
    const text = Object.fromEntries([["__proto__", "a"]]);
    expect(Object.entries(decodePng(encodePng(someImage, { text })).text)).toEqual([["__proto__", "a"]]);
  });

  test("a view into a larger buffer is read from where it begins", () => {
    const png = encodePng(someImage);
    const padded = new Uint8Array(png.length + 7);
    padded.set(png, 7);
    expect(decodePng(padded.subarray(7)).image).toEqual(someImage);
  });
});

test("Latin-1 is written as tEXt, everything else as iTXt, ahead of the pixels", () => {
  const png = encodePng(someImage, { text: { parameters: "schön", comment: "狐" } });
  expect(readChunks(png).map(({ type }) => type)).toEqual(["IHDR", "tEXt", "iTXt", "IDAT", "IEND"]);
});

describe("files written by Pillow", () => {
  test.each(goldens)("$name", ({ png, rgb, width, height, text }) => {
    expect(decodePng(fromBase64(png))).toEqual({ image: { width, height, data: fromBase64(rgb) }, text });
  });

  test("they hold both kinds of text chunk", () => {
    const types = readChunks(fromBase64(goldens[0]?.png ?? "")).map(({ type }) => type);
    expect(types).toEqual(expect.arrayContaining(["tEXt", "iTXt"]));
  });
});

test.each([1, 2, 3, 5, 8, 9, 17])("Adam7 interlacing, %i pixels wide", (width) => {
  const image = { width, height: 6, data: someImage.data.slice(0, 18 * width) };
  expect(decodePng(encode({ ...image, channels: 3 }, { interlace: "Adam7" })).image).toEqual(image);
});

describe("what cannot be written", () => {
  test.each(["", " a", "a ", "a  b", "a\nb", "狐", "\u00a0", "a\0b", "x".repeat(80)])("keyword %j", (keyword) => {
    expect(() => encodePng(someImage, { text: { [keyword]: "" } })).toThrow(refused("E_OPTION", /keyword/));
  });

  test("a keyword of 79 characters is the longest", () => {
    const text = { ["é".repeat(79)]: "a" };
    expect(decodePng(encodePng(someImage, { text })).text).toEqual(text);
  });

  test.each(["a\0b", "\ud800", "a\udc00b"])("text %j", (text) => {
    expect(() => encodePng(someImage, { text: { key: text } })).toThrow(refused("E_OPTION", /"key"/));
  });

  test.each([
    { width: 2, height: 2, data: new Uint8Array(13) },
    { width: 0, height: 2, data: new Uint8Array(0) },
    { width: 1.5, height: 2, data: new Uint8Array(9) },
  ])("image %j", (image) => {
    expect(() => encodePng(image)).toThrow(refused("E_IMAGE"));
  });
});

describe("malformed bytes", () => {
  const png = encodePng(someImage, { text: { parameters: "schön", comment: "狐" } });
  const edit = (change: (chunks: Chunk[]) => Chunk[]) => writeChunks(change(readChunks(png)));
  const replace = (type: string, data: Uint8Array) =>
    edit((chunks) => chunks.map((chunk) => (chunk.type === type ? { type, data } : chunk)));
  const header = (position: number, value: number[]) => {
    const data = (readChunks(png)[0] as Chunk).data.slice();
    data.set(value, position);
    return replace("IHDR", data);
  };

  test("every truncation is E_IMAGE", () => {
    for (let length = 0; length < png.length; length++) {
      expect(() => decodePng(png.subarray(0, length))).toThrow(refused("E_IMAGE"));
    }
  });

  test("every changed byte is E_IMAGE", () => {
    for (let i = 0; i < png.length; i++) {
      const damaged = png.slice();
      damaged[i] = (damaged[i] as number) ^ (1 + (i % 255));
      expect(() => decodePng(damaged), `byte ${i}`).toThrow(refused("E_IMAGE"));
    }
  });

  test("damage under a valid checksum is E_IMAGE or an image of the size stated", () => {
    const sources = [png, ...goldens.map((golden) => fromBase64(golden.png))].map(readChunks);
    fc.assert(
      fc.property(
        fc.constantFrom(...sources),
        fc.nat(),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 5 }),
        (chunks, which, edits) => {
          const target = which % chunks.length;
          const bytes = writeChunks(
            chunks.map((chunk, i) => {
              const data = chunk.data.slice();
              if (i === target && data.length > 0) for (const [at, value] of edits) data[at % data.length] = value;
              return { ...chunk, data };
            }),
          );
          try {
            const { image } = decodePng(bytes);
            expect(image.data).toHaveLength(3 * image.width * image.height);
          } catch (error) {
            if (!(error instanceof FemoError)) throw error;
            expect(error.code).toBe("E_IMAGE");
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("any bytes after the signature are E_IMAGE", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const data = Uint8Array.from([...png.subarray(0, 8), ...bytes]);
        expect(() => decodePng(data)).toThrow(refused("E_IMAGE"));
        expect(() => decodePng(Uint8Array.from(bytes))).toThrow(refused("E_IMAGE"));
      }),
    );
  });

  const scanlines = (length: number) => replace("IDAT", zlibSync(new Uint8Array(length)));
  const expected = 13 * (1 + 3 * 21);
  test("pixel data of the right length is accepted", () => {
    expect(decodePng(scanlines(expected)).image.data).toEqual(new Uint8Array(3 * 13 * 21));
  });

  test.each<[string, () => Uint8Array, RegExp]>([
    ["one byte too few", () => scanlines(expected - 1), /expected 832 bytes of pixel data, found 831/],
    ["one byte too many", () => scanlines(expected + 1), /more than the 832 bytes/],
    ["a decompression bomb", () => scanlines(3e7), /more than the 832 bytes/],
    ["no pixel data", () => edit((chunks) => chunks.filter(({ type }) => type !== "IDAT")), /damaged or truncated/],
    ["pixel data not compressed", () => replace("IDAT", new Uint8Array(50).fill(7)), /damaged or truncated/],
    ["a huge image", () => header(0, [0xff, 0xff, 0xff, 0xff]), /expected 1 to 67108864 pixels, found 4294967295x13/],
    ["no width", () => header(0, [0, 0, 0, 0]), /found 0x13/],
    ["16 bits", () => header(8, [16]), /expected 8 bits per sample, found 16/],
    ["colour type 5", () => header(9, [5]), /colour type 5/],
    ["a palette image without palette", () => withPalette([]), /colour \d+ of a palette of 0/],
    [
      "a colour beyond the palette",
      () => withPalette([{ type: "PLTE", data: new Uint8Array(3) }]),
      /of a palette of 1/,
    ],
    ["interlace 2", () => header(12, [2]), /interlace 2/],
    ["two headers", () => edit((chunks) => [chunks[0] as Chunk, ...chunks]), /two IHDR/],
    ["no header first", () => edit((chunks) => chunks.slice(1)), /IHDR chunk of 13 bytes first, found tEXt/],
    [
      "unknown critical chunk",
      () => edit((c) => [...c.slice(0, 1), { type: "ABcD", data: png }, ...c.slice(1)]),
      /ABcD/,
    ],
    ["text without separator", () => replace("tEXt", Uint8Array.of(97, 98)), /tEXt.*NUL/],
    ["iTXt that ends early", () => replace("iTXt", Uint8Array.of(97, 0, 0)), /iTXt.*NUL/],
    ["iTXt that is not UTF-8", () => replace("iTXt", Uint8Array.of(97, 0, 0, 0, 0, 0, 0xff)), /iTXt "a" is not UTF-8/],
    [
      "a compressed text that is a bomb",
      () => edit((c) => [...c.slice(0, 1), { type: "zTXt", data: bombText() }, ...c.slice(1)]),
      /more than the 16777216 bytes/,
    ],
  ])("%s", (_, make, message) => {
    expect(() => decodePng(make())).toThrow(refused("E_IMAGE", message));
  });

  test("a huge length field is E_IMAGE, not an allocation", () => {
    const damaged = png.slice();
    damaged.set([0xff, 0xff, 0xff, 0xff], 33);
    expect(() => decodePng(damaged)).toThrow(refused("E_IMAGE", /claims 4294967295 bytes/));
  });
});

/** Pillow's palette image with another palette. */
const withPalette = (palette: Chunk[]) => {
  const file = goldens.find(({ name }) => name === "palette");
  const [header, ...rest] = readChunks(fromBase64(file?.png ?? "")).filter(({ type }) => type !== "PLTE");
  return writeChunks([header as Chunk, ...palette, ...rest]);
};

const bombText = () => Uint8Array.from([97, 0, 0, ...zlibSync(new Uint8Array(2e7))]);
