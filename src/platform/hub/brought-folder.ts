import type { FolderSource } from "../../weights/folder-source.js";

/** A folder of which a file is brought to another one before it is read there. */
export const broughtFolder = (
  { name, exists, list }: Pick<FolderSource, "name" | "exists" | "list">,
  local: FolderSource,
  bring: (path: string) => Promise<void>,
): FolderSource => ({
  name,
  exists,
  ...(list && { list }),
  async readText(path, maxBytes) {
    await bring(path);
    return local.readText(path, maxBytes);
  },
  async open(path) {
    await bring(path);
    return local.open(path);
  },
  resolve: (path) => local.resolve(path),
});
