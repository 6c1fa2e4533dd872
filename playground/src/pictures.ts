import { decodePng, encodePng, parametersText, type RgbImage } from "femo";
import { parseSettings, type Settings } from "./settings.js";

/** Puts an image on a canvas of its size. */
export function paint(canvas: HTMLCanvasElement, { width, height, data }: RgbImage): void {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pixels = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) {
    for (let channel = 0; channel < 3; channel++) pixels[4 * i + channel] = data[3 * i + channel] as number;
  }
  canvas.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
}

const BOOST = 10;

/** Where two images differ: grey where they do not. */
export function differenceOf(a: RgbImage, b: RgbImage): RgbImage {
  const data = a.data.map((level, i) => Math.max(0, Math.min(255, 128 + BOOST * (level - (b.data[i] ?? 0)))));
  return { width: a.width, height: a.height, data };
}

export interface Noted {
  readonly settings: Settings;
  readonly model: string;
  readonly sampler: string;
}

/** A PNG that says how it was made: to other tools in their words, to this page in its own. */
export function pngOf(image: RgbImage, { settings, model, sampler }: Noted): Uint8Array {
  const parameters = parametersText({
    prompt: settings.prompt,
    steps: settings.steps,
    sampler,
    cfgScale: settings.guidance,
    seed: settings.seed,
    width: image.width,
    height: image.height,
    model,
    extra: { Cache: settings.method },
  });
  return encodePng(image, { text: { parameters, "femo playground": JSON.stringify(settings) } });
}

/** What a PNG of this page holds. @throws FemoError E_IMAGE if it is no PNG */
export function openPng(bytes: Uint8Array): {
  readonly image: RgbImage;
  readonly settings: Partial<Settings> | undefined;
} {
  const { image, text } = decodePng(bytes);
  return { image, settings: parseSettings(text["femo playground"]) };
}

export const dataUrl = (png: Uint8Array): string => {
  let text = "";
  for (const byte of png) text += String.fromCharCode(byte);
  return `data:image/png;base64,${btoa(text)}`;
};

export const bytesOf = (url: string): Uint8Array =>
  Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (char) => char.charCodeAt(0));
