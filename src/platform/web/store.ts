import { FemoError } from "../../errors.js";

/** Blobs by name that stay when the page is closed, as far as the browser keeps anything for it. */
export interface Store {
  /** "memory" is gone with the page. */
  readonly kind: "files" | "cache" | "memory";
  get(key: string): Promise<Blob | undefined>;
  /** @throws FemoError E_FILE if there is no room */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /** Removes what has this name, or names that begin with it and a slash. */
  remove(key: string): Promise<void>;
}

const FOLDER = "femo";
let opened: Promise<Store> | undefined;

/** The page's own: the Origin Private File System, Cache Storage where that is not to be written, memory where neither is. */
export function openStore(): Promise<Store> {
  opened ??= open();
  return opened;
}

async function open(): Promise<Store> {
  for (const make of [fileStore, cacheStore]) {
    // Browsers offer what they then refuse: in private windows, in pages that are not secure.
    const store = await make().catch(() => undefined);
    if (store) return store;
  }
  return memoryStore();
}

async function fileStore(): Promise<Store | undefined> {
  if (!navigator.storage?.getDirectory || !("createWritable" in FileSystemFileHandle.prototype)) return undefined;
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true });
  const folderOf = async (key: string, create: boolean) => {
    let folder = root;
    for (const part of key.split("/").slice(0, -1)) folder = await folder.getDirectoryHandle(part, { create });
    return folder;
  };
  const nameOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1);
  const ifThere = async <T>(find: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await find();
    } catch (error) {
      if (error instanceof DOMException && ["NotFoundError", "TypeMismatchError"].includes(error.name))
        return undefined;
      throw error;
    }
  };
  return {
    kind: "files",
    get: (key) =>
      ifThere(async () => {
        const file = await (await folderOf(key, false)).getFileHandle(nameOf(key));
        return file.getFile();
      }),
    put: (key, bytes) =>
      writing(key, bytes, async () => {
        const file = await (await folderOf(key, true)).getFileHandle(nameOf(key), { create: true });
        const writable = await file.createWritable(); // of a copy, which takes the file's place when it is closed
        try {
          await writable.write(bytes as BufferSource);
        } catch (error) {
          await writable.abort().catch(() => {});
          throw error;
        }
        await writable.close();
      }),
    async remove(key) {
      await ifThere(async () => (await folderOf(key, false)).removeEntry(nameOf(key), { recursive: true }));
    },
  };
}

async function cacheStore(): Promise<Store | undefined> {
  if (typeof caches === "undefined") return undefined;
  const cache = await caches.open(FOLDER);
  const address = (key: string): string => new URL(`/.femo/${key}`, location.origin).href;
  return {
    kind: "cache",
    get: async (key) => (await cache.match(address(key)))?.blob(),
    put: (key, bytes) => writing(key, bytes, () => cache.put(address(key), new Response(bytes as BodyInit))),
    async remove(key) {
      for (const { url } of await cache.keys()) {
        if (url === address(key) || url.startsWith(`${address(key)}/`)) await cache.delete(url);
      }
    },
  };
}

function memoryStore(): Store {
  const blobs = new Map<string, Blob>();
  return {
    kind: "memory",
    get: async (key) => blobs.get(key),
    async put(key, bytes) {
      blobs.set(key, new Blob([bytes as BlobPart]));
    },
    async remove(key) {
      for (const name of blobs.keys()) if (name === key || name.startsWith(`${key}/`)) blobs.delete(name);
    },
  };
}

async function writing(key: string, bytes: Uint8Array, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (cause) {
    const { usage = 0, quota = 0 } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
    const free = `${Math.round((quota - usage) / 1e6)} MB`;
    const isFull = cause instanceof DOMException && cause.name === "QuotaExceededError";
    throw new FemoError(
      "E_FILE",
      isFull
        ? `${key}: no room for ${bytes.byteLength} more bytes in what the browser keeps for this page (${free} left). ` +
            "Free space on the disk, or remove what other pages keep; what has arrived is kept."
        : `${key}: cannot be written: ${cause instanceof Error ? cause.message : String(cause)}. Reload the page.`,
      { cause },
    );
  }
}
