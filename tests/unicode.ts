import fc from "fast-check";

const SURROGATES = [0xd800, 0x800] as const; // first, and how many

/**
 * A character of any kind, the plain ones oftener: a unit of `fc.string`. Its own "binary" means the same, and takes a
 * second to list a million of them.
 */
export const anyCharacter = fc
  .oneof(
    fc.integer({ min: 0, max: 0x7f }),
    fc
      .integer({ min: 0, max: 0x10ffff - SURROGATES[1] })
      .map((point) => (point < SURROGATES[0] ? point : point + SURROGATES[1])),
  )
  .map((point) => String.fromCodePoint(point));
