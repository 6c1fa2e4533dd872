import {
  type Checkpoint,
  type CheckpointTensor,
  type DerivedTensor,
  filesOf,
  recipeOf,
  toFloat32,
} from "../weights/index.js";

/** The batch norm behind a convolution, by the names of its parts. */
const PARTS = ["weight", "bias", "running_mean", "running_var"] as const;

/** A convolution without bias and the batch norm behind it, by what their tensors' names begin with. */
export interface NormedConv {
  /** What the folded convolution is to be called: `<name>.weight`, `<name>.bias`. */
  readonly name: string;
  readonly conv: string;
  readonly norm: string;
}

/**
 * The tensors of convolutions that take in the batch norms behind them: w g / sqrt(v + e) and b - m g / sqrt(v + e), in
 * float64, rounded once. They are to be kept in a file (`Platform.kept`).
 * @param checkpoint has them all, in the right shapes
 */
export function foldedBatchNorms(
  checkpoint: Checkpoint,
  convs: readonly NormedConv[],
  epsilon: number,
): DerivedTensor[] {
  return convs.flatMap(({ name, conv, norm }) => {
    const weight = checkpoint.get(`${conv}.weight`) as CheckpointTensor;
    const sources = [weight, ...PARTS.map((part) => checkpoint.get(`${norm}.${part}`) as CheckpointTensor)];
    const folded = (part: "weight" | "bias", shape: readonly number[], make: DerivedTensor["make"]): DerivedTensor => ({
      name: `${name}.${part}`,
      dtype: "float32",
      shape,
      recipe: JSON.stringify(["batch norm folded", part, epsilon, ...sources.map(recipeOf)]),
      files: [...new Set(sources.flatMap(filesOf))],
      make,
    });
    const read = async (tensor: string): Promise<Float64Array> => {
      const bytes = await checkpoint.readBytes(tensor);
      return Float64Array.from(toFloat32(bytes, checkpoint.get(tensor)?.dtype ?? "float32", tensor));
    };
    const normOf = async () => {
      const [gain, bias, mean, variance] = (await Promise.all(PARTS.map((part) => read(`${norm}.${part}`)))) as [
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const scale = gain.map((g, i) => g / Math.sqrt((variance[i] as number) + epsilon));
      return { scale, shift: bias.map((b, i) => b - (mean[i] as number) * (scale[i] as number)) };
    };
    return [
      folded("weight", weight.shape, async () => {
        const { scale } = await normOf();
        const values = await read(`${conv}.weight`);
        const row = values.length / scale.length;
        return bytesOf(values.map((w, i) => w * (scale[Math.floor(i / row)] as number)));
      }),
      folded("bias", weight.shape.slice(0, 1), async () => bytesOf((await normOf()).shift)),
    ];
  });
}

const bytesOf = (values: Float64Array): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
