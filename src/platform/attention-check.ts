import type * as Ort from "onnxruntime-common";
import { Graph, toOnnx } from "../graph/index.js";

const [TOKENS, HEADS, WIDTH] = [24, 2, 16];
const TOLERANCE = 1e-3;

/**
 * Attention with a known answer. Drivers and versions of the runtime have computed it wrong without a word.
 * @returns how far off it is, if that is too much to draw with
 */
export async function wrongAttention(
  ort: typeof Ort,
  options: Ort.InferenceSession.SessionOptions,
): Promise<number | undefined> {
  const graph = new Graph();
  const shape = [1, TOKENS, HEADS * WIDTH];
  const [q, k, v] = ["q", "k", "v"].map((name) => graph.input(name, ["batch", ...shape.slice(1)]));
  if (!q || !k || !v) return undefined;
  graph.output("y", q.attention(k, v, HEADS));
  const data = [1, 2, 3].map((seed) =>
    Float32Array.from({ length: TOKENS * HEADS * WIDTH }, (_, i) => Math.sin(seed * 7.1 + i * (0.37 + seed / 10))),
  ) as [Float32Array, Float32Array, Float32Array];
  const session = await ort.InferenceSession.create(
    toOnnx(graph, () => undefined, "gpu"),
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
    const error = attention(...data).reduce((worst, x, i) => Math.max(worst, Math.abs(x - (found[i] as number))), 0);
    return error < TOLERANCE ? undefined : error;
  } finally {
    await session.release();
  }
}

/** softmax(q k^T / sqrt(width)) v for each head, in float64. */
function attention(q: Float32Array, k: Float32Array, v: Float32Array): Float64Array {
  const all = HEADS * WIDTH;
  const out = new Float64Array(TOKENS * all);
  for (let head = 0; head < HEADS; head++) {
    for (let row = 0; row < TOKENS; row++) {
      const at = row * all + head * WIDTH;
      const scores = Array.from({ length: TOKENS }, (_, key) => {
        let sum = 0;
        for (let i = 0; i < WIDTH; i++) sum += (q[at + i] as number) * (k[key * all + head * WIDTH + i] as number);
        return Math.exp(sum / Math.sqrt(WIDTH));
      });
      const total = scores.reduce((a, b) => a + b, 0);
      for (let i = 0; i < WIDTH; i++) {
        out[at + i] =
          scores.reduce((sum, score, key) => sum + score * (v[key * all + head * WIDTH + i] as number), 0) / total;
      }
    }
  }
  return out;
}
