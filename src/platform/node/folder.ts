import { realpathSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { readUtf8 } from "../../weights/byte-source.js";
import { type FolderSource, folderInside, MAX_TEXT_BYTES, pathInside } from "../../weights/folder-source.js";
import { fileError, isMissing, openFile } from "./file.js";

/**
 * A folder on disk. A path may not lead out of it by its text ("..", absolute); the folder's own symbolic links are
 * followed wherever they lead, because the Hugging Face cache keeps its files behind such links.
 * Nothing is read before it is asked for, so a folder that does not exist shows at the first file.
 * @param name in messages, if not the path
 */
export function nodeFolder(path: string, name = path): FolderSource {
  const place = (inside: string) => ({
    file: join(path, inside),
    shown: name === path ? join(path, inside) : `${name}/${inside}`,
  });
  const at = (inside: string) => place(pathInside(name, inside));
  const folder: FolderSource = {
    name,
    async exists(inside) {
      const { file, shown } = at(inside);
      try {
        return (await stat(file)).isFile();
      } catch (cause) {
        if (isMissing(cause)) return false;
        throw fileError(shown, cause);
      }
    },
    async list(inside) {
      const { file, shown } = place(folderInside(name, inside));
      try {
        const names = await readdir(file);
        const found = await Promise.all(names.map((name) => stat(join(file, name)).catch(() => undefined)));
        return names.filter((_, i) => found[i]?.isFile());
      } catch (cause) {
        if (isMissing(cause)) return [];
        throw fileError(shown, cause);
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
    async open(inside) {
      const { file, shown } = at(inside);
      return openFile(file, shown);
    },
    resolve(inside) {
      const { file, shown } = at(inside);
      try {
        return realpathSync(file);
      } catch (cause) {
        throw fileError(shown, cause);
      }
    },
  };
  return folder;
}
