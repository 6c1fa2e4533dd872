import { FemoError } from "../errors.js";
import {
  type Graph,
  type Precision,
  type QuantizedLocation,
  sizeOf,
  type Target,
  toOnnx,
  type WeightLocation,
  type WeightStorage,
} from "../graph/index.js";
import {
  type Checkpoint,
  type CheckpointTensor,
  type DerivedTensor,
  isDerived,
  isPacked,
  leavesOf,
  type PackedMatrix,
  type PackedPart,
  storedBytes,
  type TensorInfo,
} from "../weights/index.js";
import type { GraphFile, WeightFile } from "./engine.js";

/** Serialises graphs with the weights of a checkpoint; see `graphWriter`. */
export interface GraphWriter {
  /**
   * @param target what it will run on. Default "cpu"
   * @throws FemoError E_WEIGHT if the checkpoint lacks a weight, or has it in another shape or only as a recipe; E_FILE if
   *   the files have no folder in common
   */
  write(graph: Graph, target?: Target): GraphFile;
  /** Bytes of one element of a weight as it computes: 4, less of one in few bits. */
  bytesOf(weight: string): number;
}

/**
 * Serialises graphs whose weights are a checkpoint's tensors, in the files where they are, each graph with those that it
 * needs. Files are named from the deepest folder that has them all. Computed tensors have to be kept in a file first
 * (`Platform.kept`).
 * @param precision in what products compute
 * @throws FemoError E_FILE if the files have no folder in common
 */
export function graphWriter(checkpoint: Checkpoint, precision: Precision = "float32"): GraphWriter {
  const folder = commonFolder(checkpoint);
  return {
    write(graph, target) {
      const files = new Map<string, WeightFile>();
      const place = (tensor: CheckpointTensor): WeightLocation => {
        if (isDerived(tensor) || isPacked(tensor)) {
          throw new FemoError(
            "E_WEIGHT",
            `${checkpoint.name}: ${tensor.name} is computed, and in no file that the runtime could read. Keep it in one ` +
              "before its network is made (Platform.kept).",
          );
        }
        const { file } = tensor;
        const name = file.slice(folder.length);
        const { fingerprint, blob } = checkpoint.stateOf(file);
        files.set(file, { name, at: blob ?? file, ...(fingerprint !== undefined && { fingerprint }) });
        return { ...tensor, file: name };
      };
      const model = toOnnx(
        graph,
        (name): WeightStorage | undefined => {
          const tensor = checkpoint.get(name);
          if (!tensor || !isPacked(tensor)) return tensor && place(tensor);
          return quantizedLocation(tensor, place);
        },
        { target, precision },
      );
      return { model, files: [...files.values()] };
    },
    bytesOf(weight) {
      const tensor = checkpoint.get(weight);
      if (!tensor || !isPacked(tensor)) return Float32Array.BYTES_PER_ELEMENT;
      return storedBytes(tensor) / sizeOf(tensor.shape);
    },
  };
}

/** Where the parts of a matrix in few bits lie. */
export function quantizedLocation(
  { bits, block, parts }: PackedMatrix,
  place: (part: TensorInfo | DerivedTensor) => WeightLocation,
): QuantizedLocation {
  const part = (which: PackedPart): WeightLocation | undefined => parts[which] && place(parts[which]);
  const [values, scales] = [part("values"), part("scales")] as [WeightLocation, WeightLocation];
  return { bits, block, values, scales, zeros: part("zeros"), minimums: part("minimums") };
}

/** Of the tensors that are in files. @throws FemoError E_FILE if they have none */
function commonFolder(checkpoint: Checkpoint): string {
  const stored = checkpoint.tensors().flatMap(leavesOf);
  const files = new Set(stored.flatMap((tensor) => (isDerived(tensor) ? [] : [tensor.file])));
  const folders = Array.from(files, (file) => parts(file).slice(0, -1));
  const [first = [], ...others] = folders;
  const shared = first.findIndex((part, i) => others.some((folder) => folder[i] !== part));
  const folder = (shared < 0 ? first : first.slice(0, shared)).join("");
  if (folder !== "" || files.size === 0) return folder;
  throw new FemoError(
    "E_FILE",
    `${checkpoint.name}: its files must lie in one folder, found ${folders.map((folder) => folder.join("")).join(", ")}. ` +
      "Copy them together, or, if some of them are weights that were computed, set FEMO_CACHE to a folder on the same drive.",
  );
}

/** "/a/b/c" to "/", "a/", "b/", "c" */
const parts = (path: string): string[] => path.match(/[^/\\]*[/\\]?/g)?.filter(Boolean) ?? [];
