import type { Graph, Value } from "../graph/index.js";
import { type ActivationName, activations } from "./activations.js";

/** Sizes of a transformer of CLIP, of texts or of images. */
export interface ClipLayersConfig {
  /** D */
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: ActivationName;
  readonly layerNormEps: number;
}

/** What the transformers of CLIP (Radford et al., arXiv 2103.00020) are made of, over the weights of a graph. */
export function clipLayers(graph: Graph, config: ClipLayersConfig, { causal }: { readonly causal: boolean }) {
  const { hiddenSize: width, numAttentionHeads: heads } = config;
  const linear = (x: Value, name: string, outFeatures: number): Value =>
    x.linear(
      graph.weight(`${name}.weight`, [outFeatures, x.shape.at(-1) as number]),
      graph.weight(`${name}.bias`, [outFeatures]),
    );
  const norm = (x: Value, name: string): Value =>
    x.layerNorm(config.layerNormEps, graph.weight(`${name}.weight`, [width]), graph.weight(`${name}.bias`, [width]));
  const attention = (x: Value, name: string): Value => {
    const [q, k, v] = ["q", "k", "v"].map((part) => linear(x, `${name}.${part}_proj`, width)) as [Value, Value, Value];
    return linear(q.attention(k, v, heads, { causal }), `${name}.out_proj`, width);
  };
  const mlp = (x: Value, name: string): Value =>
    linear(activations[config.hiddenAct](linear(x, `${name}.fc1`, config.intermediateSize)), `${name}.fc2`, width);

  /** x: [B, T, D] */
  const layer = (x: Value, name: string): Value => {
    const h = x.add(attention(norm(x, `${name}.layer_norm1`), `${name}.self_attn`));
    return h.add(mlp(norm(h, `${name}.layer_norm2`), `${name}.mlp`));
  };
  return { linear, norm, layer };
}
