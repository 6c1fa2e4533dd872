import { FemoError } from "../errors.js";
import { type ByteSource, memoryByteSource, readUtf8 } from "./byte-source.js";
import { listSome, quote } from "./text.js";

/** A folder of files: on disk, in memory, on the web. Paths are relative to it and use "/". */
export interface FolderSource {
  /** Path or address, as it should stand in messages. */
  readonly name: string;
  /** True if there is a file at the path. @throws FemoError E_FILE if the path leads out of the folder */
  exists(path: string): Promise<boolean>;
  /**
   * Names of the files directly in a folder inside, none if it is not there. Absent where what is there may not be all
   * that the model has, so that nothing follows from what is missing.
   * @throws FemoError E_FILE if the path leads out of the folder
   */
  list?(path: string): Promise<readonly string[]>;
  /**
   * A UTF-8 text without its byte order mark.
   * @param maxBytes longer files are refused; 32 MiB unless told
   * @throws FemoError E_FILE
   */
  readText(path: string, maxBytes?: number): Promise<string>;
  /** @throws FemoError E_FILE if there is no such file, or the path leads out of the folder */
  open(path: string): Promise<ByteSource>;
  /**
   * What the runtime should point external data to: on disk the real path, all symbolic links followed.
   * @throws FemoError E_FILE if there is no such file, or the path leads out of the folder
   */
  resolve(path: string): string;
}

/** A folder inside a folder, as one of its own. */
export function subfolder(folder: FolderSource, path: string): FolderSource {
  const inside = (file: string): string => `${path}/${pathInside(`${folder.name}/${path}`, file)}`;
  return {
    name: `${folder.name}/${path}`,
    exists: async (file) => folder.exists(inside(file)),
    ...(folder.list && { list: async (file: string) => (folder.list as Lister)(file === "." ? path : inside(file)) }),
    readText: async (file, maxBytes) => folder.readText(inside(file), maxBytes),
    open: async (file) => folder.open(inside(file)),
    resolve: (file) => folder.resolve(inside(file)),
  };
}

type Lister = NonNullable<FolderSource["list"]>;

/** What `FolderSource.readText` allows unless told. */
export const MAX_TEXT_BYTES = 32 * 2 ** 20;

/**
 * A path inside a folder in its plain form: no "." and no empty parts. Only the text is looked at.
 * @param folder the name in messages
 * @throws FemoError E_FILE if the path is absolute, has a ".." part, or characters that file names should not have
 */
export function pathInside(folder: string, path: string): string {
  const parts = path.split("/");
  const problem = /^\/|^[A-Za-z]:/.test(path)
    ? "is absolute"
    : parts.includes("..")
      ? "leads out of the folder"
      : // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
        /[\\\u0000-\u001f\u007f]/.test(path)
        ? "has a backslash or a control character"
        : parts.every((part) => part === "" || part === ".")
          ? "names no file"
          : undefined;
  if (problem) {
    throw new FemoError(
      "E_FILE",
      `${folder}: the path ${quote(path)} ${problem}. Expected a path inside the folder, such as "vae/config.json".`,
    );
  }
  return parts.filter((part) => part !== "" && part !== ".").join("/");
}

/** As `pathInside`; also the folder itself, ".", which is "". */
export const folderInside = (folder: string, path: string): string => (path === "." ? "" : pathInside(folder, path));

/** Of paths, the names of those directly in a folder. */
export function namesIn(paths: Iterable<string>, folder: string): string[] {
  const start = folder === "" ? "" : `${folder}/`;
  return [...paths].flatMap((path) => {
    const name = path.slice(start.length);
    return path.startsWith(start) && !name.includes("/") ? [name] : [];
  });
}

/** Files in memory as a folder, such as those a user dropped on a page. `resolve` gives back the path. */
export function memoryFolder(name: string, files: ReadonlyMap<string, Uint8Array>): FolderSource {
  const find = (path: string): Uint8Array => {
    const bytes = files.get(pathInside(name, path));
    if (!bytes)
      throw new FemoError("E_FILE", `${name}/${path}: no such file. There are:${listSome([...files.keys()])}`);
    return bytes;
  };
  const folder: FolderSource = {
    name,
    exists: async (path) => files.has(pathInside(name, path)),
    list: async (path) => namesIn(files.keys(), folderInside(name, path)),
    async readText(path, maxBytes = MAX_TEXT_BYTES) {
      return readUtf8(await folder.open(path), maxBytes);
    },
    open: async (path) => memoryByteSource(`${name}/${path}`, find(path)),
    resolve(path) {
      find(path);
      return pathInside(name, path);
    },
  };
  return folder;
}
