import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { Value } from "../graph/index.js";
import { BATCH, type Model, type Trace } from "../tracing/index.js";
import { epsilon, layerCount, parseConfig, positive } from "./config.js";

/** The config of diffusers' `DiTTransformer2DModel`, in camelCase. */
export interface DiTConfig {
  numAttentionHeads: number;
  attentionHeadDim: number;
  inChannels: number;
  /** Twice inChannels when the model also predicts a variance. */
  outChannels: number;
  numLayers: number;
  attentionBias: boolean;
  /** Height and width of the (latent) image. */
  sampleSize: number;
  patchSize: number;
  activationFn: "gelu" | "gelu-approximate";
  /** Number of classes; the embedding table has one row more, the null class of classifier-free guidance. */
  numEmbedsAdaNorm: number;
  normElementwiseAffine: boolean;
  normEps: number;
  /** Frequencies of the timestep's sinusoids: 10⁻⁴ to the power i / (128 - shift). diffusers: 1, the original release: 0. */
  downscaleFreqShift: 0 | 1;
}

const jsonConfig = z.object({
  num_attention_heads: z._default(positive, 16),
  attention_head_dim: z._default(positive, 72),
  in_channels: z._default(positive, 4),
  out_channels: z.nullish(positive),
  num_layers: z._default(layerCount, 28),
  attention_bias: z._default(z.boolean(), true),
  sample_size: z._default(positive, 32),
  patch_size: z._default(positive, 2),
  activation_fn: z._default(z.enum(["gelu", "gelu-approximate"]), "gelu-approximate"),
  num_embeds_ada_norm: z._default(positive, 1000),
  norm_type: z._default(z.literal("ada_norm_zero"), "ada_norm_zero"),
  norm_elementwise_affine: z._default(z.boolean(), false),
  norm_eps: z._default(epsilon, 1e-5),
});

/**
 * Reads a `transformer/config.json`; fields left out have diffusers' defaults, fields that do not touch inference are ignored.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function ditConfigFromJson(json: unknown, file = "transformer/config.json"): DiTConfig {
  const c = parseConfig(jsonConfig, json, file, "DiTTransformer2DModel");
  const config: DiTConfig = {
    numAttentionHeads: c.num_attention_heads,
    attentionHeadDim: c.attention_head_dim,
    inChannels: c.in_channels,
    outChannels: c.out_channels ?? c.in_channels,
    numLayers: c.num_layers,
    attentionBias: c.attention_bias,
    sampleSize: c.sample_size,
    patchSize: c.patch_size,
    activationFn: c.activation_fn,
    numEmbedsAdaNorm: c.num_embeds_ada_norm,
    normElementwiseAffine: c.norm_elementwise_affine,
    normEps: c.norm_eps,
    downscaleFreqShift: 1, // fixed in diffusers
  };
  const width = config.numAttentionHeads * config.attentionHeadDim;
  if (config.sampleSize % config.patchSize !== 0) {
    throw new FemoError(
      "E_CONFIG",
      `${file}: sample_size ${config.sampleSize} is not a multiple of patch_size ${config.patchSize}`,
    );
  }
  if (width % 4 !== 0) {
    throw new FemoError("E_CONFIG", `${file}: the width (heads x head dim) must be a multiple of 4, found ${width}`);
  }
  return config;
}

/** DiT-XL/2 at 256x256 (latents of 32x32), the model of the FEMO paper's Table 4. */
export const ditXL2: DiTConfig = ditConfigFromJson({ out_channels: 8 });

const SINUSOID_CHANNELS = 256;
const NORM_EPS = 1e-6; // of the norms that have no parameters, fixed in DiT and in diffusers

/**
 * Diffusion transformer with adaLN-Zero (Peebles & Xie, arXiv 2212.09748), tensor names as in diffusers.
 * B: batch, T: tokens, D: width.
 */
export function dit(config: DiTConfig): Model {
  const { numAttentionHeads: heads, sampleSize, patchSize, numLayers, inChannels, outChannels } = config;
  const width = heads * config.attentionHeadDim;
  const side = sampleSize / patchSize;
  const tokens = side * side;

  const build = (t: Trace): Value => {
    const weights = (name: string, inFeatures: number, outFeatures: number): [weight: Value, bias: Value] => [
      t.weight(`${name}.weight`, [outFeatures, inFeatures]),
      t.weight(`${name}.bias`, [outFeatures]),
    ];
    const linear = (x: Value, name: string, inFeatures: number, outFeatures: number, bias = true): Value =>
      bias
        ? x.linear(...weights(name, inFeatures, outFeatures))
        : x.linear(t.weight(`${name}.weight`, [outFeatures, inFeatures]), null);

    /** Embedding of timestep and label; diffusers keeps a copy of it in every block.  [B, D] */
    const condition = (name: string): Value => {
      const sinusoid = timestepSinusoid(t, config.downscaleFreqShift);
      const hidden = linear(sinusoid, `${name}.timestep_embedder.linear_1`, SINUSOID_CHANNELS, width).silu();
      const time = linear(hidden, `${name}.timestep_embedder.linear_2`, width, width);
      const table = t.weight(`${name}.class_embedder.embedding_table.weight`, [config.numEmbedsAdaNorm + 1, width]);
      return time.add(table.gather(t.input("class_label")));
    };

    /** adaLN: shifts, scales and gates regressed from timestep and label.  parts of [B, 1, D] */
    const modulation = (name: string, embedding: string, parts: number): Value[] =>
      t
        .hoist("pair", name, [BATCH, parts * width], () =>
          linear(condition(embedding).silu(), name, width, parts * width),
        )
        .unsqueeze(1)
        .chunk(parts, 2);

    const one = t.graph.scalar(1);
    const modulate = (x: Value, shift: Value, scale: Value): Value => x.mul(scale.add(one)).add(shift);

    const attention = (name: string, x: Value): Value => {
      const [q, k, v] = ["to_q", "to_k", "to_v"].map((part) =>
        linear(x, `${name}.${part}`, width, width, config.attentionBias),
      ) as [Value, Value, Value];
      return linear(t.attention(name, q, k, v, heads), `${name}.to_out.0`, width, width);
    };

    const mlp = (name: string, x: Value): Value => {
      const approximate = config.activationFn === "gelu" ? "none" : "tanh";
      return t.mlp(name, x, {
        widen: weights(`${name}.net.0.proj`, width, 4 * width),
        activate: (hidden) => hidden.gelu(approximate),
        narrow: weights(`${name}.net.2`, 4 * width, width),
      });
    };

    const first = "transformer_blocks.0";
    /** adaLN-Zero block (figure 3).  x: [B, T, D] */
    const block = (x: Value, name: string): Value => {
      const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = modulation(
        `${name}.norm1.linear`,
        `${name}.norm1.emb`,
        6,
      ) as [Value, Value, Value, Value, Value, Value];
      const a = t.feature({ level: "module", name: `${name}.attn1` }, x, (tokens) => {
        const modulated = modulate(tokens.layerNorm(NORM_EPS), shiftA, scaleA);
        return attention(`${name}.attn1`, name === first ? t.mark("modulated", modulated) : modulated);
      });
      const h = x.add(gateA.mul(a)); // [B, T, D]
      const tokenwise = { attention: `${name}.attn1`, attended: tokens, grid: [side, side] } as const;
      const m = t.feature({ level: "module", name: `${name}.ff`, tokenwise }, h, (part) => {
        const affine = config.normElementwiseAffine
          ? [t.weight(`${name}.norm3.weight`, [width]), t.weight(`${name}.norm3.bias`, [width])]
          : [];
        return mlp(`${name}.ff`, modulate(part.layerNorm(config.normEps, ...affine), shiftM, scaleM));
      });
      return h.add(gateM.mul(m)); // [B, T, D]
    };

    const sample = t.input("sample"); // [B, C, H, W]
    const output = { level: "output", name: "output", shape: [BATCH, outChannels, sampleSize, sampleSize] };
    return t.feature(output, sample, (latent) => {
      const kernel = t.weight("pos_embed.proj.weight", [width, inChannels, patchSize, patchSize]);
      const patches = latent.patchConv(kernel, t.weight("pos_embed.proj.bias", [width])); // [B, D, side, side]
      const positions = t.graph.constant(sincosPositions(width, side), [1, tokens, width]);
      const x = patches.reshape([BATCH, width, tokens]).transpose([0, 2, 1]).add(positions); // [B, T, D]

      const chain = "transformer_blocks";
      const blocks = Array.from({ length: numLayers }, (_, i) => (s: { x: Value }) => ({
        x: block(s.x, `${chain}.${i}`),
      }));
      const y = t.feature(
        { level: "stack", name: chain, residual: true },
        x,
        (h) => t.chain(chain, { x: h }, blocks).x,
      );

      const [shift, scale] = modulation("proj_out_1", "transformer_blocks.0.norm1.emb", 2) as [Value, Value];
      const out = modulate(y.layerNorm(NORM_EPS), shift, scale);
      return unpatchify(linear(out, "proj_out_2", width, patchSize * patchSize * outChannels));
    });

    /** [B, T, p*p*C] to [B, C, H, W] */
    function unpatchify(x: Value): Value {
      return x
        .reshape([BATCH, side, side, patchSize, patchSize, outChannels])
        .transpose([0, 5, 1, 3, 2, 4])
        .reshape([BATCH, outChannels, sampleSize, sampleSize]);
    }
  };

  return {
    inputs: [
      { name: "sample", dtype: "float32", shape: [inChannels, sampleSize, sampleSize], varies: "step" },
      { name: "timestep", dtype: "float32", shape: [], varies: "timestep" },
      { name: "class_label", dtype: "int64", shape: [], varies: "condition" },
    ],
    output: [outChannels, sampleSize, sampleSize],
    levels: ["module", "block", "stack", "output"],
    chains: { transformer_blocks: numLayers },
    marks: ["modulated"],
    build,
  };
}

/** Transformer sinusoids of the timestep, cosines first, frequencies 1 to 1e-4: inclusive if the shift is 1.  [B, 256] */
function timestepSinusoid(t: Trace, shift: number): Value {
  const half = SINUSOID_CHANNELS / 2;
  const frequencies = Float32Array.from({ length: half }, (_, i) => Math.exp((-Math.log(10_000) * i) / (half - shift)));
  const angle = t
    .input("timestep")
    .unsqueeze(1)
    .mul(t.graph.constant(frequencies, [1, half]));
  return angle.cos().concat([angle.sin()], 1);
}

/** Fixed positions of ViT/MAE: a quarter of the channels each for sin x, cos x, sin y, cos y.  [T, D] */
function sincosPositions(width: number, side: number): Float32Array {
  const quarter = width / 4;
  const out = new Float32Array(side * side * width);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      for (let i = 0; i < quarter; i++) {
        const omega = 10_000 ** (-i / quarter);
        const token = (y * side + x) * width + i;
        out[token] = Math.sin(x * omega);
        out[token + quarter] = Math.cos(x * omega);
        out[token + 2 * quarter] = Math.sin(y * omega);
        out[token + 3 * quarter] = Math.cos(y * omega);
      }
    }
  }
  return out;
}
