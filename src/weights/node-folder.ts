import { realpathSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { readUtf8 } from "./byte-source.js";
import { type FolderSource, MAX_TEXT_BYTES, pathInside } from "./folder-source.js";
import { fileError, isMissing, openFile } from "./node-file.js";

/**
 * A folder on disk. A path may not lead out of it by its text ("..", absolute); the folder's own symbolic links are
 * followed wherever they lead, because the Hugging Face cache keeps its files behind such links.
 * Nothing is read before it is asked for, so a folder that does not exist shows at the first file.
 */
export function nodeFolder(path: string): FolderSource {
  const at = (inside: string): string => join(path, pathInside(path, inside));
  const folder: FolderSource = {
    name: path,
    async exists(inside) {
      const file = at(inside);
      try {
        return (await stat(file)).isFile();
      } catch (cause) {
        if (isMissing(cause)) return false;
        throw fileError(file, cause);
      }
    },
    async readText(inside, maxBytes = MAX_TEXT_BYTES) {
      const source = await folder.open(inside);
      try {
        return await readUtf8(source, maxBytes);
      } finally {
        await source.close();
      }
    },
    open: async (inside) => openFile(at(inside)),
    resolve(inside) {
      const file = at(inside);
      try {
        return realpathSync(file);
      } catch (cause) {
        throw fileError(file, cause);
      }
    },
  };
  return folder;
}
