import { basename } from "node:path";
import type { Readable } from "node:stream";

/** Of what is kept; drivers may repeat themselves. */
const MAX_LENGTH = 1 << 16;

/** What native code in another process says on its standard error: ONNX Runtime, Dawn, drivers. Kept until it is passed on. */
export class NativeWords {
  #kept = "";
  #passes = false;
  readonly #ended: Promise<void>;

  constructor(stream: Readable) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      if (this.#passes) process.stderr.write(text);
      else this.#kept = (this.#kept + text).slice(0, MAX_LENGTH);
    });
    this.#ended = new Promise((resolve) => stream.once("close", resolve));
  }

  /** Writes it to this process's standard error, and what comes after it. */
  passOn(): void {
    process.stderr.write(this.#kept);
    this.#kept = "";
    this.#passes = true;
  }

  /** The libraries that it says could not be loaded, once the process has ended. */
  async missingLibraries(): Promise<string[]> {
    await this.#ended;
    return missingLibraries(this.#kept);
  }
}

/** @param text of Linux's and of Windows' loader */
export function missingLibraries(text: string): string[] {
  const found = text.matchAll(/([^\s:"]+): cannot open shared object file|when trying to load "([^"]+)"/g);
  return [...new Set([...found].map(([, linux, windows]) => basename((linux ?? windows ?? "").replaceAll("\\", "/"))))];
}
