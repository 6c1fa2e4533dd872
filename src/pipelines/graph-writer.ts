import { FemoError } from "../errors.js";
import { type Graph, toOnnx } from "../graph/index.js";
import type { GraphFile } from "../runtime/engine.js";
import type { Checkpoint } from "../weights/index.js";

/**
 * Serialises graphs whose weights are a checkpoint's tensors, in the files where they are. The runtime wants these in,
 * or below, one folder.
 * @throws FemoError E_FILE if the files have no folder in common
 */
export function graphWriter(checkpoint: Checkpoint): (graph: Graph) => GraphFile {
  const folders = [...new Set(checkpoint.tensors().map(({ file }) => file))].map((file) => parts(file).slice(0, -1));
  const [first = [], ...others] = folders;
  const shared = first.findIndex((part, i) => others.some((folder) => folder[i] !== part));
  const folder = (shared < 0 ? first : first.slice(0, shared)).join("");
  if (folder === "") {
    throw new FemoError(
      "E_FILE",
      `${checkpoint.name}: its files must lie in one folder, found ${folders.map((folder) => folder.join("")).join(", ")}. ` +
        "Copy them together.",
    );
  }
  return (graph) => ({
    model: toOnnx(graph, (name) => {
      const tensor = checkpoint.get(name);
      return tensor && { ...tensor, file: tensor.file.slice(folder.length) };
    }),
    weightsFolder: folder,
  });
}

/** "/a/b/c" to "/", "a/", "b/", "c" */
const parts = (path: string): string[] => path.match(/[^/\\]*[/\\]?/g)?.filter(Boolean) ?? [];
