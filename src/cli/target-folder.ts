import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeWhole } from "../platform/node/whole-files.js";
import type { TargetStore } from "../studies/index.js";
import { keepingError } from "./files.js";
import { digestOf } from "./row-file.js";

/** Targets of fits in a folder, a file for each, whole or not there; several processes may work with it. */
export class TargetFolder implements TargetStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** @throws FemoError E_FILE if it is there and cannot be read */
  async get(key: string): Promise<Uint8Array | undefined> {
    try {
      return await readFile(this.#path(key));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw this.#error(error);
    }
  }

  /** @throws FemoError E_FILE if it cannot be written */
  async set(key: string, bytes: Uint8Array): Promise<void> {
    try {
      await writeWhole({ path: this.#path(key), write: (temporary) => writeFile(temporary, bytes) });
    } catch (error) {
      throw this.#error(error);
    }
  }

  #path = (key: string): string => join(this.#folder, `${digestOf(key).slice(0, 32)}.bin`);

  #error = (cause: unknown) => keepingError(this.#folder, "targets", cause, "--targets goes elsewhere");
}
