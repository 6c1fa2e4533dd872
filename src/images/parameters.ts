import { FemoError } from "../errors.js";

/** How an image was made, in the terms of the AUTOMATIC1111 web UI. */
export interface GenerationParameters {
  readonly prompt: string;
  readonly negativePrompt?: string;
  /** Sampling steps. */
  readonly steps: number;
  /** Name of the sampler, such as DDIM. */
  readonly sampler: string;
  /** Guidance scale; 1 is none. */
  readonly cfgScale: number;
  readonly seed: number | bigint;
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  readonly model: string;
  /** More fields, written after the others in this order. */
  readonly extra?: Readonly<Record<string, string | number | boolean>>;
}

/**
 * The text that AUTOMATIC1111's web UI stores under the PNG keyword "parameters" and other tools read: the prompt, a
 * line `Negative prompt: …` if there is one, and a line of fields
 * `Steps: 50, Sampler: DDIM, CFG scale: 1.5, Seed: 42, Size: 64x64, Model: …`.
 *
 * A value that would not read back, as it holds a comma, colon, line break, or begins with a quote or space, is written
 * as a JSON string. Prompts are written as they are, as the web UI does.
 *
 * @throws FemoError E_OPTION if the name of an extra field is not two or more letters, digits, _, -, / or spaces, the
 *   first no space, - or /: readers would not find it
 */
export function parametersText(parameters: GenerationParameters): string {
  const { prompt, negativePrompt, steps, sampler, cfgScale, seed, width, height, model, extra = {} } = parameters;
  for (const name of Object.keys(extra)) {
    if (/^\w[\w \-/]*[\w\-/]$/.test(name)) continue;
    throw new FemoError(
      "E_OPTION",
      `parametersText: expected field names of two or more letters, digits, _, -, / or inner spaces, found ${JSON.stringify(name)}.`,
    );
  }
  const fields: [string, string | number | bigint | boolean][] = [
    ["Steps", steps],
    ["Sampler", sampler],
    ["CFG scale", cfgScale],
    ["Seed", seed],
    ["Size", `${width}x${height}`],
    ["Model", model],
    ...Object.entries(extra),
  ];
  const lines = [prompt];
  if (negativePrompt) lines.push(`Negative prompt: ${negativePrompt}`);
  lines.push(fields.map(([name, value]) => `${name}: ${quote(String(value))}`).join(", "));
  return lines.join("\n");
}

const quote = (value: string): string => (/[,:\r\n]|^["\s]|\s$/.test(value) ? JSON.stringify(value) : value);
