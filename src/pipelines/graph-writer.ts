import { FemoError } from "../errors.js";
import { type Graph, toOnnx } from "../graph/index.js";
import type { GraphFile } from "../runtime/engine.js";
import { type Checkpoint, scalesOf, type TensorInfo } from "../weights/index.js";

/**
 * Serialises graphs whose weights are a checkpoint's tensors, in the files where they are. The runtime wants these in,
 * or below, one folder.
 * @param quantized 8-bit copies of some of them, which take their place
 * @throws FemoError E_FILE if the files have no folder in common
 */
export function graphWriter(checkpoint: Checkpoint, quantized?: Checkpoint): (graph: Graph) => GraphFile {
  const tensors = [...checkpoint.tensors(), ...(quantized?.tensors() ?? [])];
  const folders = [...new Set(tensors.map(({ file }) => file))].map((file) => parts(file).slice(0, -1));
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
  const place = (tensor: TensorInfo | undefined) => tensor && { ...tensor, file: tensor.file.slice(folder.length) };
  return (graph) => ({
    model: toOnnx(graph, (name) => {
      const [values, scales] = [place(quantized?.get(name)), place(quantized?.get(scalesOf(name)))];
      return values && scales ? { values, scales } : place(checkpoint.get(name));
    }),
    weightsFolder: folder,
  });
}

/** "/a/b/c" to "/", "a/", "b/", "c" */
const parts = (path: string): string[] => path.match(/[^/\\]*[/\\]?/g)?.filter(Boolean) ?? [];
