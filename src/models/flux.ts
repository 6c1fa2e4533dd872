import { addDims, type Bindings, type Dim, productDim, type Value } from "../graph/index.js";
import { BATCH, type Model, once, type Trace } from "../tracing/index.js";
import type { FluxConfig } from "./flux-config.js";

/** The sizes that requests choose: height and width in tokens, which are pixels / 16, and tokens of the prompt, padding included. */
export const fluxSizes = { rows: "rows", columns: "columns", text: "text" } as const;

/** Latent pixels along the side of a token. */
const PATCH = 2;
const SINUSOID_CHANNELS = 256;
const NORM_EPS = 1e-6; // of every norm, fixed in FLUX and in diffusers
const MLP_RATIO = 4;
const ROPE_THETA = 10_000;

/** Image and text, each a stream of tokens. */
type Streams = { readonly image: Value; readonly text: Value };

/**
 * Rectified-flow transformer FLUX.1 (Black Forest Labs), tensor names as in diffusers. The sample is the latent image,
 * packed into tokens of 2 x 2 pixels inside; `timestep` runs from 1 (noise) to 0, `guidance` is the scale itself.
 * B: batch, C: latent channels, I and T: tokens of image and text, D: width.
 * @param sizes in numbers for graphs of one size, else symbols
 */
export function flux(config: FluxConfig, sizes: Readonly<Record<keyof typeof fluxSizes, Dim>> = fluxSizes): Model {
  const { numAttentionHeads: heads, attentionHeadDim: headDim, inChannels } = config;
  const { rows, columns, text: textTokens } = sizes;
  const width = heads * headDim;
  const imageTokens = productDim([rows, columns]);
  const tokens = addDims(textTokens, imageTokens);
  const outWidth = config.patchSize ** 2 * config.outChannels;
  const latent = (channels: number): Dim[] => [
    channels / PATCH ** 2,
    productDim([PATCH, rows]),
    productDim([PATCH, columns]),
  ];

  const build = (t: Trace): Value => {
    const weights = (name: string, inFeatures: number, outFeatures: number): [weight: Value, bias: Value] => [
      t.weight(`${name}.weight`, [outFeatures, inFeatures]),
      t.weight(`${name}.bias`, [outFeatures]),
    ];
    const linear = (x: Value, name: string, inFeatures: number, outFeatures: number): Value =>
      x.linear(...weights(name, inFeatures, outFeatures));

    const embed = (x: Value, name: string, inFeatures: number): Value =>
      linear(linear(x, `${name}.linear_1`, inFeatures, width).silu(), `${name}.linear_2`, width, width);

    /** Embedding of timestep, guidance and pooled text, activated; one for all blocks.  [B, D] */
    const condition = once(() => {
      const names = ["timestep", ...(config.guidanceEmbeds ? ["guidance"] : [])];
      const scalars = names.map((name) =>
        embed(sinusoid(t.input(name)), `time_text_embed.${name}_embedder`, SINUSOID_CHANNELS),
      );
      const pooled = t.input("pooled_projection");
      const text = embed(pooled, "time_text_embed.text_embedder", config.pooledProjectionDim);
      return scalars.reduceRight((sum, value) => value.add(sum), text).silu();
    });

    /** adaLN: shifts, scales and gates regressed from the condition.  parts of [B, 1, D] */
    const modulation = (name: string, parts: number): Value[] =>
      t
        .hoist("pair", name, [BATCH, parts * width], () => linear(condition(), name, width, parts * width))
        .unsqueeze(1)
        .chunk(parts, 2);

    const one = t.graph.scalar(1);
    const modulate = (x: Value, shift: Value, scale: Value): Value =>
      x.layerNorm(NORM_EPS).mul(scale.add(one)).add(shift);

    /** Queries or keys, normalised within each head.  [B, tokens, D] */
    const headNorm = (x: Value, name: string): Value =>
      x
        .reshape([...x.shape.slice(0, 2), heads, headDim])
        .rmsNorm(NORM_EPS, t.weight(`${name}.weight`, [headDim]))
        .reshape(x.shape);

    /** Queries, keys and values of one stream. */
    const projections = (
      x: Value,
      attn: string,
      parts: readonly [string, string, string],
      norms: string,
    ): Projections => {
      const [q, k, v] = parts.map((part) => linear(x, `${attn}.${part}`, width, width)) as [Value, Value, Value];
      return { q: headNorm(q, `${attn}.${norms}q`), k: headNorm(k, `${attn}.${norms}k`), v };
    };

    /** Attention of all tokens over all tokens, the text's first.  [B, T + I, D] */
    const attend = (name: string, { q, k, v }: Projections): Value => {
      const [cos, sin] = [t.input("rotary_cos"), t.input("rotary_sin")];
      return t.attention(name, q.rotary(cos, sin, heads), k.rotary(cos, sin, heads), v, heads);
    };

    const mlp = (x: Value, name: string): Value =>
      t.mlp(name, x, {
        widen: weights(`${name}.net.0.proj`, width, MLP_RATIO * width),
        activate: (hidden) => hidden.gelu("tanh"),
        narrow: weights(`${name}.net.2`, MLP_RATIO * width, width),
      });

    /** Double-stream block: streams with weights of their own meet in attention. */
    const doubleBlock = ({ image, text }: Streams, name: string): Streams => {
      const attn = `${name}.attn`;
      const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = modulation(`${name}.norm1.linear`, 6) as Six;
      const [textShiftA, textScaleA, textGateA, textShiftM, textScaleM, textGateM] = modulation(
        `${name}.norm1_context.linear`,
        6,
      ) as Six;
      const joint = once((): Streams => {
        const modulated = modulate(image, shiftA, scaleA);
        if (name === "transformer_blocks.0") t.mark("modulated", modulated);
        const i = projections(modulated, attn, ["to_q", "to_k", "to_v"], "norm_");
        const c = projections(
          modulate(text, textShiftA, textScaleA),
          attn,
          ["add_q_proj", "add_k_proj", "add_v_proj"],
          "norm_added_",
        );
        const [q, k, v] = [c.q.concat([i.q], 1), c.k.concat([i.k], 1), c.v.concat([i.v], 1)];
        return parted(attend(attn, { q, k, v }), { image, text });
      });
      const imageA = t.feature({ level: "module", name: `${attn}.to_out` }, image, () =>
        linear(joint().image, `${attn}.to_out.0`, width, width),
      );
      const textA = t.feature({ level: "module", name: `${attn}.to_add_out` }, text, () =>
        linear(joint().text, `${attn}.to_add_out`, width, width),
      );
      const [x, c] = [image.add(gateA.mul(imageA)), text.add(textGateA.mul(textA))];
      const tokenwise = (stream: keyof Streams) => ({
        ...{ attention: attn, attended: tokens },
        part: (mass: Value) => parted(mass, { image, text })[stream],
      });
      const ofImage = { level: "module", name: `${name}.ff`, tokenwise: tokenwise("image") };
      const imageM = t.feature(ofImage, x, (after) => mlp(modulate(after, shiftM, scaleM), `${name}.ff`));
      const ofText = { level: "module", name: `${name}.ff_context`, tokenwise: tokenwise("text") };
      const textM = t.feature(ofText, c, (after) => mlp(modulate(after, textShiftM, textScaleM), `${name}.ff_context`));
      return { image: x.add(gateM.mul(imageM)), text: c.add(textGateM.mul(textM)) };
    };

    /** Single-stream block: attention and MLP side by side.  x: [B, T + I, D] */
    const singleBlock = (x: Value, name: string): Value => {
      const [shift, scale, gate] = modulation(`${name}.norm.linear`, 3) as [Value, Value, Value];
      const attn = `${name}.attn`;
      const tokenwise = { attention: attn, attended: tokens };
      const y = t.feature({ level: "module", name: `${name}.proj_out`, tokenwise }, x, (some) => {
        const h = modulate(some, shift, scale);
        const a = t.feature({ level: "attention", name: attn, shape: [BATCH, tokens, width] }, h, (all) =>
          attend(attn, projections(all, attn, ["to_q", "to_k", "to_v"], "norm_")),
        );
        const m = linear(h, `${name}.proj_mlp`, width, MLP_RATIO * width).gelu("tanh");
        return linear(a.concat([m], 2), `${name}.proj_out`, (1 + MLP_RATIO) * width, width);
      });
      return x.add(gate.mul(y));
    };

    /** The two streams of a joint sequence. */
    const parted = (x: Value, { text, image }: Streams): Streams => {
      const [t, i] = x.splitLike([text, image], 1) as [Value, Value];
      return { text: t, image: i };
    };

    const transformer = (streams: Streams): Value => {
      const doubles = Array.from(
        { length: config.numLayers },
        (_, i) => (s: Streams) => doubleBlock(s, `transformer_blocks.${i}`),
      );
      const { image, text } = t.chain("transformer_blocks", streams, doubles);
      const singles = Array.from({ length: config.numSingleLayers }, (_, i) => ({ x }: { x: Value }) => ({
        x: singleBlock(x, `single_transformer_blocks.${i}`),
      }));
      const { x } = t.chain("single_transformer_blocks", { x: text.concat([image], 1) }, singles);
      return parted(x, streams).image;
    };

    const output = { level: "output", name: "output", shape: [BATCH, ...latent(outWidth)] };
    return t.feature(output, t.input("sample"), (sample) => {
      const squares = sample.spaceToDepth(PATCH, rows, columns); // [B, 4 C, rows, columns]
      const image = linear(packed(squares), "x_embedder", inChannels, width);
      const y = t.feature({ level: "stack", name: "transformer_blocks", residual: true }, image, (x) => {
        const text = t.hoist("condition", "context_embedder", [BATCH, textTokens, width], () =>
          linear(t.input("encoder_hidden_states"), "context_embedder", config.jointAttentionDim, width),
        );
        return transformer({ image: x, text });
      });
      const [scale, shift] = modulation("norm_out.linear", 2) as [Value, Value];
      const out = linear(modulate(y, shift, scale), "proj_out", width, outWidth); // [B, I, 4 C]
      return out.transpose([0, 2, 1]).reshape([BATCH, outWidth, rows, columns], squares).depthToSpace(PATCH);
    });

    /** A token's channels count latent channels slowest, the four pixels of each fastest.  [B, I, 4 C] */
    function packed(squares: Value): Value {
      return squares
        .reshape([BATCH, PATCH ** 2, inChannels / PATCH ** 2, imageTokens])
        .transpose([0, 3, 2, 1])
        .reshape([BATCH, imageTokens, inChannels]);
    }
  };

  const angles = (of: (angle: number) => number) => ({
    dtype: "float32" as const,
    shape: [tokens, headDim / 2],
    varies: "size" as const,
    values: (sizes: Bindings) => rotaryTable(config.axesDimsRope, sizes, of),
  });
  return {
    inputs: [
      { name: "sample", dtype: "float32", shape: latent(inChannels), varies: "step" },
      { name: "timestep", dtype: "float32", shape: [], varies: "timestep" },
      ...(config.guidanceEmbeds
        ? [{ name: "guidance", dtype: "float32", shape: [], varies: "condition" } as const]
        : []),
      { name: "pooled_projection", dtype: "float32", shape: [config.pooledProjectionDim], varies: "condition" },
      {
        name: "encoder_hidden_states",
        dtype: "float32",
        shape: [textTokens, config.jointAttentionDim],
        varies: "condition",
      },
      { name: "rotary_cos", ...angles(Math.cos) },
      { name: "rotary_sin", ...angles(Math.sin) },
    ],
    output: latent(outWidth),
    levels: ["attention", "module", "block", "stack", "output"],
    chains: { transformer_blocks: config.numLayers, single_transformer_blocks: config.numSingleLayers },
    marks: ["modulated"],
    build,
    sized: ({ rows, columns, text }) => flux(config, { rows, columns, text } as Record<keyof typeof fluxSizes, number>),
  };
}

type Six = [Value, Value, Value, Value, Value, Value];
interface Projections {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
}

/** Transformer sinusoids of a thousand times x, cosines first, frequencies from 1 towards 1e-4 exclusive.  [B, 256] */
function sinusoid(x: Value): Value {
  const half = SINUSOID_CHANNELS / 2;
  const frequencies = Float32Array.from({ length: half }, (_, i) => Math.exp((-Math.log(10_000) * i) / half));
  const angle = x
    .mul(x.graph.scalar(1000))
    .unsqueeze(1)
    .mul(x.graph.constant(frequencies, [1, half]));
  return angle.cos().concat([angle.sin()], 1);
}

/** A function of the rotary embedding's angles at (0, row, column), the text's tokens all at the origin.  [T + I, headDim / 2] */
function rotaryTable(
  axes: readonly number[],
  { rows = 0, columns = 0, text = 0 }: Bindings,
  of: (angle: number) => number,
): Float32Array {
  const frequencies = axes.flatMap((dim, axis) =>
    Array.from({ length: dim / 2 }, (_, i) => ({ axis, omega: ROPE_THETA ** ((-2 * i) / dim) })),
  );
  const tokens = text + rows * columns;
  const table = new Float32Array(tokens * frequencies.length);
  for (let token = 0; token < tokens; token++) {
    const i = token - text;
    const position = i < 0 ? [0, 0, 0] : [0, Math.floor(i / columns), i % columns];
    frequencies.forEach(({ axis, omega }, j) => {
      table[token * frequencies.length + j] = of((position[axis] as number) * omega);
    });
  }
  return table;
}
