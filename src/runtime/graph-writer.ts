import { FemoError } from "../errors.js";
import { type Graph, toOnnx } from "../graph/index.js";
import { type Checkpoint, scalesOf, type TensorInfo } from "../weights/index.js";
import type { GraphFile, WeightFile } from "./engine.js";

/**
 * Serialises graphs whose weights are a checkpoint's tensors, in the files where they are, each graph with those that it
 * needs. Files are named from the deepest folder that has them all.
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
  return (graph) => {
    const files = new Map<string, WeightFile>();
    const place = (from: Checkpoint | undefined, tensor: TensorInfo | undefined) => {
      if (!tensor) return undefined;
      const { file } = tensor;
      const [name, fingerprint] = [file.slice(folder.length), from?.fingerprint(file)];
      files.set(file, { name, at: file, ...(fingerprint !== undefined && { fingerprint }) });
      return { ...tensor, file: name };
    };
    const model = toOnnx(graph, (name) => {
      const [values, scales] = [name, scalesOf(name)].map((of) => place(quantized, quantized?.get(of)));
      return values && scales ? { values, scales } : place(checkpoint, checkpoint.get(name));
    });
    return { model, files: [...files.values()] };
  };
}

/** "/a/b/c" to "/", "a/", "b/", "c" */
const parts = (path: string): string[] => path.match(/[^/\\]*[/\\]?/g)?.filter(Boolean) ?? [];
