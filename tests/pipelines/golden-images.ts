import { expect } from "vitest";
import type { GeneratedImage, GenerateOptions } from "../../src/pipelines/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openCheckpoint } from "../../src/weights/index.js";

const inCamelCase = (key: string): string => key.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** Keyword arguments of diffusers as options. */
export const optionsOf = (request: Record<string, unknown>): GenerateOptions =>
  Object.fromEntries(Object.entries(request).map(([key, value]) => [inCamelCase(key), value]));

/** That these are the images which diffusers drew, within one 8-bit level and 99 of 100 levels equal. */
export async function expectGolden(
  folder: string,
  name: string,
  images: readonly GeneratedImage[],
  file = "golden.safetensors",
): Promise<void> {
  const golden = await openCheckpoint(nodeFolder(folder), file);
  const wanted = await golden.readBytes(name);
  const [count, height, width] = golden.get(name)?.shape ?? [];
  expect(images.map((image) => [image.height, image.width])).toEqual(new Array(count).fill([height, width]));
  const off = images.flatMap(({ data }) => [...data]).map((level, i) => Math.abs(level - (wanted[i] as number)));
  expect(off.length).toBe(wanted.length);
  expect(Math.max(...off)).toBeLessThanOrEqual(1);
  expect(off.filter((levels) => levels > 0).length / off.length).toBeLessThan(0.01);
}
