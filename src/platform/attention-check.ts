import type * as Ort from "onnxruntime-common";
import { Graph, toOnnx } from "../graph/index.js";

const HEADS = 2;
/** Tokens and widths of heads for which the runtime has different kernels. Of fewer than 32 tokens errors do not show. */
const SHAPES = [
  [48, 16],
  [160, 64],
] as const;
const TOLERANCE = 1e-3;

/**
 * Attention with a known answer. Drivers and versions of the runtime have computed it wrong without a word.
 * @returns how far off it is, if that is too much to draw with
 */
export async function wrongAttention(
  ort: typeof Ort,
  options: Ort.InferenceSession.SessionOptions,
): Promise<number | undefined> {
  let worst = 0;
  for (const [tokens, width] of SHAPES) worst = Math.max(worst, await errorOf(ort, options, tokens, width));
  return worst < TOLERANCE ? undefined : worst;
}

/** The greatest error of an element. */
async function errorOf(
  ort: typeof Ort,
  options: Ort.InferenceSession.SessionOptions,
  tokens: number,
  width: number,
): Promise<number> {
  const graph = new Graph();
  const shape = [1, tokens, HEADS * width];
  const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, ["batch", ...shape.slice(1)]));
  if (!q || !k || !v) return 0;
  graph.output("y", q.attention(k, v, HEADS));
  const data = [1, 2, 3].map((seed) =>
    Float32Array.from({ length: tokens * HEADS * width }, (_, i) => Math.sin(seed * 7.1 + i * (0.37 + seed / 10))),
  ) as [Float32Array, Float32Array, Float32Array];
  const session = await ort.InferenceSession.create(
    toOnnx(graph, () => undefined, { target: "gpu" }),
    options,
  );
  try {
    const [qs, ks, vs] = data.map((values) => new ort.Tensor("float32", values, shape)) as [
      Ort.Tensor,
      Ort.Tensor,
      Ort.Tensor,
    ];
    const { y } = await session.run({ q: qs, k: ks, v: vs });
    const found = (await y?.getData()) as Float32Array;
    const error = attention(data, tokens, width).reduce(
      (worst, x, i) => Math.max(worst, Math.abs(x - (found[i] as number))),
      0,
    );
    return error;
  } finally {
    await session.release();
  }
}

/** softmax(q k^T / sqrt(width)) v for each head, in float64. */
function attention(
  [q, k, v]: readonly [Float32Array, Float32Array, Float32Array],
  tokens: number,
  width: number,
): Float64Array {
  const all = HEADS * width;
  const out = new Float64Array(tokens * all);
  for (let head = 0; head < HEADS; head++) {
    for (let row = 0; row < tokens; row++) {
      const at = row * all + head * width;
      const scores = Array.from({ length: tokens }, (_, key) => {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += (q[at + i] as number) * (k[key * all + head * width + i] as number);
        return Math.exp(sum / Math.sqrt(width));
      });
      const total = scores.reduce((a, b) => a + b, 0);
      for (let i = 0; i < width; i++) {
        out[at + i] =
          scores.reduce((sum, score, key) => sum + score * (v[key * all + head * width + i] as number), 0) / total;
      }
    }
  }
  return out;
}
