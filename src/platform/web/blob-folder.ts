import { FemoError } from "../../errors.js";
import { blobByteSource, readUtf8 } from "../../weights/byte-source.js";
import { type FolderSource, folderInside, MAX_TEXT_BYTES, namesIn, pathInside } from "../../weights/folder-source.js";
import { listSome } from "../../weights/text.js";

/** A file that the browser has. */
export interface BlobFile {
  readonly blob: Blob;
  /** Changes when its bytes do. */
  readonly version: string;
}

/**
 * Files that the browser has, as a folder.
 * @param root what the runtime's names of its files begin with, "/" first
 */
export function blobFolder(name: string, files: ReadonlyMap<string, BlobFile>, root: string): FolderSource {
  const find = (path: string): BlobFile => {
    const file = files.get(pathInside(name, path));
    if (file) return file;
    throw new FemoError("E_FILE", `${name}/${path}: no such file. There are:${listSome([...files.keys()])}`);
  };
  const open = (path: string) => {
    const { blob, version } = find(path);
    return blobByteSource(`${name}/${pathInside(name, path)}`, blob, version);
  };
  return {
    name,
    exists: async (path) => files.has(pathInside(name, path)),
    list: async (path) => namesIn(files.keys(), folderInside(name, path)),
    readText: async (path, maxBytes = MAX_TEXT_BYTES) => readUtf8(open(path), maxBytes),
    open: async (path) => open(path),
    resolve(path) {
      find(path);
      return `${root}/${pathInside(name, path)}`;
    },
  };
}
