import { mkdtempSync, readFileSync, rmdirSync, type Stats, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import { FemoError } from "../errors.js";
import { decodePng, type RgbImage } from "../images/index.js";
import { writeWhole } from "../platform/node/whole-files.js";

/** Where a command writes to: the one file that was named, or a folder. */
export type Target = { readonly file: string } | { readonly folder: string };

/** Endings by which a path is meant as a file, not as a folder with a dot in its name. */
const fileEndings = new Set(
  "png jpg jpeg gif webp bmp tif tiff avif heic jxl svg pdf htm html json csv txt md"
    .split(" ")
    .map((name) => `.${name}`),
);

/**
 * What `--out` means, once it is known that files can be written there.
 * @param ending of the files that the command writes
 * @throws FemoError E_OPTION if it is a file where a folder is needed or the reverse, a file of another kind, or lies where
 *   nothing can be written
 */
export function outputTarget(out: string, ending: ".png" | ".html"): Target {
  const given = extname(out).toLowerCase();
  const found = statOf(out);
  if (given === ending) {
    if (found?.isDirectory())
      throw outError(`expected a ${ending} file or a folder without that ending, found the folder ${out}`);
    checkWritable(dirname(resolve(out)), out);
    return { file: out };
  }
  if (found && !found.isDirectory()) throw outError(`expected a ${ending} file or a folder, found the file ${out}`);
  if (!found && fileEndings.has(given)) throw outError(`expected a ${ending} file or a folder, found ${out}`);
  checkWritable(resolve(out), out);
  return { folder: out };
}

/**
 * @param force files, but not folders, may be there
 * @throws FemoError E_OPTION if one of the paths is taken
 */
export function checkFree(paths: readonly string[], force = false): void {
  for (const path of paths) {
    const found = statOf(path);
    if (found?.isDirectory()) throw new FemoError("E_OPTION", `${path} is a folder. --out goes elsewhere`);
    if (found && !force) throw new FemoError("E_OPTION", `${path} exists. --force overwrites it, --out goes elsewhere`);
  }
}

/**
 * Writes all files or none, each under another name in its folder until it is whole.
 * @throws FemoError E_FILE if one cannot be written; the signal's reason if it was aborted
 */
export async function writeFiles(
  files: readonly { path: string; content: Uint8Array | string }[],
  signal: AbortSignal,
): Promise<void> {
  const write = (content: Uint8Array | string) => (path: string) => writeFile(path, content, { signal });
  try {
    await writeWhole(...files.map(({ path, content }) => ({ path, write: write(content) })));
  } catch (error) {
    signal.throwIfAborted();
    const paths = files.map(({ path }) => path).join(", ");
    throw new FemoError("E_FILE", `${paths} cannot be written: ${reasonOf(error)}`, { cause: error });
  }
}

/** The error of something that femo keeps for later, and cannot. @param advice where else it may go */
export const keepingError = (path: string, what: string, cause: unknown, advice: string): FemoError =>
  new FemoError("E_FILE", `${path}: ${what} cannot be kept: ${reasonOf(cause)}. ${advice}`, { cause });

/** @throws FemoError E_FILE if it cannot be read */
export const textOf = (path: string): string => bytesOf(path).toString("utf8");

/**
 * The picture that a flag names.
 * @throws FemoError E_FILE if it cannot be read, E_IMAGE if it is not a PNG, naming the flag and the file
 */
export const pictureOf =
  (flag: string) =>
  (path: string): RgbImage => {
    try {
      return decodePng(bytesOf(path)).image;
    } catch (error) {
      if (!(error instanceof FemoError)) throw error;
      const where = error.code === "E_IMAGE" ? `${path}: ` : "";
      throw new FemoError(error.code, `${flag}: ${where}${error.message}`, { cause: error });
    }
  };

function bytesOf(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new FemoError("E_FILE", `${path} cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}

/** Tries it, in the nearest folder that is there: permissions alone do not tell of file systems that only read. */
function checkWritable(folder: string, out: string): void {
  let nearest = folder;
  while (!statOf(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  if (statOf(nearest)?.isFile()) throw outError(`${out} would be in ${nearest}, which is a file`);
  try {
    rmdirSync(mkdtempSync(join(nearest, ".femo-")));
  } catch (error) {
    throw outError(`nothing can be written in ${nearest}: ${reasonOf(error)}. --out goes elsewhere`);
  }
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw outError(`${path}: ${reasonOf(error)}`);
  }
}

const outError = (message: string): FemoError => new FemoError("E_OPTION", `--out: ${message}`);
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
