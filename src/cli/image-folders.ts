import { createHash } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FemoError } from "../errors.js";
import { decodePng } from "../images/index.js";
import type { ImageSource } from "../metrics/index.js";
import { fileError, openFile } from "../platform/node/file.js";
import { readNpz } from "../weights/index.js";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Names with numbers in the order of the numbers: "2.png" before "10.png". */
const inOrder = new Intl.Collator("en", { numeric: true });

/**
 * The PNG files of a folder, in the order of their names, numbers by their size; or the images of a `.npz` of samples, uint8
 * [images, height, width, 3] under "arr_0", as DiT's and ADM's scripts write it.
 * @throws FemoError E_OPTION if there is no such folder or file, or it has no images
 */
export async function imagesAt(path: string): Promise<ImageSource[]> {
  if (path.endsWith(".npz")) return npzImages(path);
  const names = pngNames(path);
  return names.map((name) => ({
    name,
    async read() {
      const file = join(path, name);
      const bytes = await readFile(file).catch((cause) => {
        throw fileError(file, cause);
      });
      return { digest: sha256(bytes), decode: () => decodePng(Uint8Array.from(bytes)).image };
    },
  }));
}

function pngNames(path: string): string[] {
  let names: string[];
  try {
    if (!statSync(path).isDirectory())
      throw new FemoError("E_OPTION", `${path}: expected a folder of PNG files or a .npz file, found a file`);
    names = readdirSync(path).filter((name) => /\.png$/i.test(name) && !name.startsWith("."));
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    throw new FemoError("E_OPTION", fileError(path, cause).message, { cause });
  }
  if (names.length === 0) {
    throw new FemoError(
      "E_OPTION",
      `${path}: has no PNG files. Metrics read PNG: other formats lose what they measure`,
    );
  }
  return names.sort(inOrder.compare);
}

async function npzImages(path: string): Promise<ImageSource[]> {
  const source = await openFile(path);
  try {
    const npz = await readNpz(source);
    const header = await npz.header("arr_0");
    const [count = 0, height = 0, width = 0, channels = 0] = header?.shape ?? [];
    if (header?.kind !== "u1" || header.shape.length !== 4 || channels !== 3) {
      throw new FemoError(
        "E_OPTION",
        `${path}: expected images under "arr_0", uint8 [images, height, width, 3], found ${header ? `${header.kind} [${header.shape.join(", ")}]` : "none"}`,
      );
    }
    return Array.from({ length: count }, (_, i) => ({
      name: String(i),
      async read() {
        // Opened for each image: a set is looked at once, from its start to its end, and nobody says when it is over.
        const opened = await openFile(path);
        try {
          const data = await (await readNpz(opened)).byteRows("arr_0", i, i + 1);
          return { digest: sha256(data), decode: () => ({ width, height, data }) };
        } finally {
          await opened.close();
        }
      },
    }));
  } finally {
    await source.close();
  }
}
