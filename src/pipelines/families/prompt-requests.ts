import { concat } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import type { HostTensor } from "../../runtime/engine.js";
import type { Shown } from "../family.js";
import type { SubjectOptions } from "../subject-options.js";

/** Prompts for studies, where the model says none. */
export const examplePrompts = [
  "a fox in the snow",
  "a lighthouse on a cliff at sunset, oil painting",
  "a bowl of lemons on a blue table",
  "portrait of an old sailor, black and white photograph",
  "a red bicycle in front of a bookshop",
  "a small robot that waters a plant",
  "mountains behind a lake in the morning fog",
  "a hand-drawn map of an island",
  "a cat asleep on a pile of books",
  "a street in the rain at night, neon signs",
];

/** The longest side, in pixels. */
const MAX_SIDE = 8192;

/** @throws FemoError E_OPTION if a side in pixels is no multiple of what the model draws at once, or too long */
export function checkSide(name: string, pixels: number, multiple: number): void {
  if (Number.isInteger(pixels) && pixels >= multiple && pixels <= MAX_SIDE && pixels % multiple === 0) return;
  const near = Math.min(MAX_SIDE, Math.max(multiple, Math.round(pixels / multiple) * multiple));
  throw new FemoError(
    "E_OPTION",
    `${name}: expected a multiple of ${multiple} from ${multiple} to ${MAX_SIDE} pixels, found ${pixels}. The nearest is ${Number.isFinite(near) ? near : multiple}.`,
  );
}

/** What an image is to show, in the words of the request. */
type Texts = Shown & { readonly prompt: string };

/** What each image is to show; a text beside the prompts is for all of them, or there are as many. */
export function promptTexts(request: SubjectOptions, ownNegative?: string): readonly Omit<Texts, "title">[] {
  const prompts = [request.prompt as string | readonly string[]].flat();
  const of = (name: "prompt2" | "negativePrompt" | "negativePrompt2", otherwise?: string) => {
    const texts = [request[name] ?? otherwise ?? []].flat();
    if (typeof request[name] === "object" && texts.length !== prompts.length) {
      throw new FemoError(
        "E_OPTION",
        `${name}: expected one text, or one for each of the ${prompts.length} prompts, found a list of ${texts.length}`,
      );
    }
    return (i: number): string | undefined => texts[texts.length > 1 ? i : 0];
  };
  const [second, negative, negative2] = [of("prompt2"), of("negativePrompt", ownNegative), of("negativePrompt2")];
  return prompts.map((prompt, i) => {
    const [prompt2, negativePrompt, negativePrompt2] = [second(i), negative(i), negative2(i)];
    return {
      prompt,
      ...(prompt2 !== undefined && { prompt2 }),
      ...(negativePrompt !== undefined && { negativePrompt }),
      ...(negativePrompt2 !== undefined && { negativePrompt2 }),
    };
  });
}

/** Those of the fields that are there. */
export const given = <K extends keyof Texts>(
  texts: Omit<Texts, "title">,
  names: readonly K[],
): Partial<Pick<Texts, K>> =>
  Object.fromEntries(Object.entries(texts).filter(([name]) => names.includes(name as K))) as Partial<Pick<Texts, K>>;

/** Equal arguments give the same value. */
export function interned<A extends readonly unknown[], T>(make: (...data: A) => T): (...data: A) => T {
  const made = new Map<string, T>();
  return (...data) => {
    const key = JSON.stringify(data);
    const value = made.get(key) ?? make(...data);
    made.set(key, value);
    return value;
  };
}

/** Conditions as an input of the model, a row for each. @param dims of a row */
export const conditionTable = (dims: readonly number[], rows: readonly Float32Array[]): HostTensor => ({
  ...{ dtype: "float32", dims: [rows.length, ...dims], data: concat(rows) },
});
