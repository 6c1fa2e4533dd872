import { expect, test } from "vitest";
import { type ClassNames, classId } from "../../src/pipelines/labels.js";
import { femoError } from "../weights/helpers.js";

/** ImageNet has such names: of its classes 264 and 474, 134 and 517, and others. */
const classes: ClassNames = new Map([
  [0, ["Cardigan", "Cardigan Welsh corgi"]],
  [1, ["cardigan"]],
  [2, ["crane"]],
  [3, ["crane"]],
  [4, ["Pixel-Art", "pixels"]],
  [5, ["7"]],
  [6, ["pixel art"]],
  [7, ["T-shirt"]],
]);

test.each<[label: string | number, id: number]>([
  ["cardigan", 1],
  ["Cardigan", 0],
  [" cardigan ", 1],
  ["cardigan welsh CORGI", 0],
  ["pixel art", 6],
  ["Pixel-Art", 4],
  ["Pixel_Art", 4],
  ["pixel-art", 6],
  ["t shirt", 7],
  ["7", 5],
  [7, 7],
  ["2", 2],
])("%j is class %i", (label, id) => expect(classId(label, classes)).toBe(id));

test.each([
  ["crane", ["2 (crane)", "3 (crane)"]],
  ["CARDIGAN", ["0 (Cardigan, Cardigan Welsh corgi)", "1 (cardigan)"]],
  ["PIXEL ART", ["4 ", "6 "]],
])("%j is several classes", async (label, numbers) => {
  const message = await femoError("E_OPTION", async () => classId(label, classes));
  for (const number of numbers) expect(message).toContain(number);
});

test("every class is drawn by its number, whatever it is called", () => {
  for (const id of classes.keys()) expect(classId(id, classes)).toBe(id);
});
