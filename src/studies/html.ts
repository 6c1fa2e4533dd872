import { encodePng, type RgbImage } from "../images/index.js";
import { base64 } from "./base64.js";

/** Markup that is safe to insert as it is. */
export class Html {
  readonly #markup: string;

  constructor(markup: string) {
    this.#markup = markup;
  }

  toString(): string {
    return this.#markup;
  }
}

type Part = Html | string | number | bigint | undefined | false | readonly Part[];

/** A template whose values are escaped, for text and for quoted attributes, unless they are `Html` themselves. */
export const html = (strings: TemplateStringsArray, ...values: readonly Part[]): Html =>
  new Html(strings.map((text, i) => (i === 0 ? text : render(values[i - 1]) + text)).join(""));

/** A value as JSON that is safe inside a script element, where nothing is escaped and "</script" or "<!--" would act. */
export const scriptJson = (value: unknown): Html =>
  new Html(
    JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );

/** A script to be put inline. */
export const inlineScript = (source: string): Html =>
  new Html(`<script>${source.replace(/<(?=\/script|!--)/gi, "\\x3c")}</script>`);

function render(part: Part): string {
  if (part === undefined || part === false) return "";
  if (part instanceof Html) return part.toString();
  if (typeof part === "object") return part.map(render).join("");
  return String(part).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** An image as an address that holds it. */
export const dataUri = (image: RgbImage): string => `data:image/png;base64,${base64(encodePng(image))}`;
