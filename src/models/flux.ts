import { FemoError } from "../errors.js";
import type { Value } from "../graph/graph.js";
import { BATCH, type ModelDefinition, type Trace } from "../graph/trace.js";
import type { FluxConfig } from "./flux-config.js";

/** Tokens of an image and its prompt. */
export interface FluxSize {
  /** Height and width in tokens: pixels / 16. Default 64, which is 1024 pixels. */
  readonly rows?: number;
  readonly columns?: number;
  /** Tokens of the prompt, padding included. Default 512; schnell was trained with 256. */
  readonly textTokens?: number;
}

const SINUSOID_CHANNELS = 256;
const NORM_EPS = 1e-6; // of every norm, fixed in FLUX and in diffusers
const MLP_RATIO = 4;
const ROPE_THETA = 10_000;

/** Image and text, each a stream of tokens. */
interface Streams {
  readonly image: Value;
  readonly text: Value;
}

/**
 * Rectified-flow transformer FLUX.1 (Black Forest Labs), tensor names as in diffusers. The sample is the latent image
 * packed into tokens, `timestep` runs from 1 (noise) to 0, `guidance` is the scale itself.
 * B: batch, I and T: tokens of image and text, D: width.
 */
export function flux(config: FluxConfig, size: FluxSize = {}): ModelDefinition {
  const { rows = 64, columns = 64, textTokens = 512 } = size;
  for (const [name, value] of Object.entries({ rows, columns, textTokens })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new FemoError("E_OPTION", `${name}: expected a positive integer, found ${value}`);
    }
  }
  const { numAttentionHeads: heads, attentionHeadDim: headDim, inChannels } = config;
  const width = heads * headDim;
  const imageTokens = rows * columns;
  const tokens = textTokens + imageTokens;
  const outWidth = config.patchSize ** 2 * config.outChannels;

  const build = (t: Trace): Value => {
    const linear = (x: Value, name: string, inFeatures: number, outFeatures: number): Value =>
      x.linear(t.weight(`${name}.weight`, [outFeatures, inFeatures]), t.weight(`${name}.bias`, [outFeatures]));

    const embed = (x: Value, name: string, inFeatures: number): Value =>
      linear(linear(x, `${name}.linear_1`, inFeatures, width).silu(), `${name}.linear_2`, width, width);

    /** Embedding of timestep, guidance and pooled text, activated; one for all blocks.  [B, D] */
    const condition = once(() => {
      const names = ["timestep", ...(config.guidanceEmbeds ? ["guidance"] : [])];
      const scalars = names.map((name) =>
        embed(sinusoid(t.input(name, [BATCH])), `time_text_embed.${name}_embedder`, SINUSOID_CHANNELS),
      );
      const pooled = t.input("pooled_projection", [BATCH, config.pooledProjectionDim]);
      const text = embed(pooled, "time_text_embed.text_embedder", config.pooledProjectionDim);
      return scalars.reduceRight((sum, value) => value.add(sum), text).silu();
    });

    /** adaLN: shifts, scales and gates regressed from the condition.  parts of [B, 1, D] */
    const modulation = (name: string, parts: number): Value[] =>
      t
        .hoist(name, [BATCH, parts * width], () => linear(condition(), name, width, parts * width))
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

    const angles = once(() => {
      const { cos, sin } = rotaryAngles(config.axesDimsRope, textTokens, rows, columns);
      const shape = [tokens, headDim / 2];
      return { cos: t.graph.constant(cos, shape), sin: t.graph.constant(sin, shape) };
    });

    /** Attention of all tokens over all tokens, the text's first.  [B, T + I, D] */
    const attend = ({ q, k, v }: Projections): Value => {
      const { cos, sin } = angles();
      return q.rotary(cos, sin, heads).attention(k.rotary(cos, sin, heads), v, heads);
    };

    const mlp = (x: Value, name: string): Value =>
      linear(
        linear(x, `${name}.net.0.proj`, width, MLP_RATIO * width).gelu("tanh"),
        `${name}.net.2`,
        MLP_RATIO * width,
        width,
      );

    /** Double-stream block: streams with weights of their own meet in attention. */
    const doubleBlock = ({ image, text }: Streams, name: string): Streams => {
      const attn = `${name}.attn`;
      const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = modulation(`${name}.norm1.linear`, 6) as Six;
      const [textShiftA, textScaleA, textGateA, textShiftM, textScaleM, textGateM] = modulation(
        `${name}.norm1_context.linear`,
        6,
      ) as Six;
      const joint = once((): Streams => {
        const i = projections(modulate(image, shiftA, scaleA), attn, ["to_q", "to_k", "to_v"], "norm_");
        const c = projections(
          modulate(text, textShiftA, textScaleA),
          attn,
          ["add_q_proj", "add_k_proj", "add_v_proj"],
          "norm_added_",
        );
        const [q, k, v] = [c.q.concat([i.q], 1), c.k.concat([i.k], 1), c.v.concat([i.v], 1)];
        return parted(attend({ q, k, v }));
      });
      const imageA = t.feature("module", `${attn}.to_out`, image.shape, () =>
        linear(joint().image, `${attn}.to_out.0`, width, width),
      );
      const textA = t.feature("module", `${attn}.to_add_out`, text.shape, () =>
        linear(joint().text, `${attn}.to_add_out`, width, width),
      );
      const [x, c] = [image.add(gateA.mul(imageA)), text.add(textGateA.mul(textA))];
      const imageM = t.feature("module", `${name}.ff`, image.shape, () =>
        mlp(modulate(x, shiftM, scaleM), `${name}.ff`),
      );
      const textM = t.feature("module", `${name}.ff_context`, text.shape, () =>
        mlp(modulate(c, textShiftM, textScaleM), `${name}.ff_context`),
      );
      return { image: x.add(gateM.mul(imageM)), text: c.add(textGateM.mul(textM)) };
    };

    /** Single-stream block: attention and MLP side by side.  x: [B, T + I, D] */
    const singleBlock = (x: Value, name: string): Value => {
      const [shift, scale, gate] = modulation(`${name}.norm.linear`, 3) as [Value, Value, Value];
      const y = t.feature("module", `${name}.proj_out`, x.shape, () => {
        const h = modulate(x, shift, scale);
        const a = attend(projections(h, `${name}.attn`, ["to_q", "to_k", "to_v"], "norm_"));
        const m = linear(h, `${name}.proj_mlp`, width, MLP_RATIO * width).gelu("tanh");
        return linear(a.concat([m], 2), `${name}.proj_out`, (1 + MLP_RATIO) * width, width);
      });
      return x.add(gate.mul(y));
    };

    const parted = (x: Value): Streams => {
      const [text, image] = x.split([textTokens, imageTokens], 1) as [Value, Value];
      return { image, text };
    };

    const transformer = (streams: Streams): Value => {
      let { image, text } = streams;
      for (let i = 0; i < config.numLayers; i++) {
        const [input, name] = [{ image, text }, `transformer_blocks.${i}`];
        const block = once(() => doubleBlock(input, name));
        image = t.residual("block", `${name}.image`, image, () => block().image);
        text = t.residual("block", `${name}.text`, text, () => block().text);
      }
      let x = text.concat([image], 1);
      for (let i = 0; i < config.numSingleLayers; i++) {
        const [input, name] = [x, `single_transformer_blocks.${i}`];
        x = t.residual("block", name, input, () => singleBlock(input, name));
      }
      return parted(x).image;
    };

    return t.feature("output", "output", [BATCH, imageTokens, outWidth], () => {
      const image = linear(t.input("sample", [BATCH, imageTokens, inChannels]), "x_embedder", inChannels, width);
      const y = t.residual("stack", "transformer_blocks", image, () => {
        const prompt = t.input("encoder_hidden_states", [BATCH, textTokens, config.jointAttentionDim]);
        const text = linear(prompt, "context_embedder", config.jointAttentionDim, width);
        return transformer({ image, text });
      });
      const [scale, shift] = modulation("norm_out.linear", 2) as [Value, Value];
      return linear(modulate(y, shift, scale), "proj_out", width, outWidth);
    });
  };

  return {
    sampleShape: [imageTokens, inChannels],
    outputShape: [imageTokens, outWidth],
    conditions: [
      { name: "timestep", dtype: "float32" },
      ...(config.guidanceEmbeds ? [{ name: "guidance", dtype: "float32" } as const] : []),
      { name: "pooled_projection", dtype: "float32", shape: [config.pooledProjectionDim] },
    ],
    build,
  };
}

type Six = [Value, Value, Value, Value, Value, Value];
interface Projections {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
}

/** A computation that several names share: made by the first that asks, or by none. */
function once<T extends object>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
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

/** Angles of the rotary embedding at (0, row, column), the text's tokens all at the origin.  [T + I, headDim / 2] each */
function rotaryAngles(
  axes: readonly number[],
  textTokens: number,
  rows: number,
  columns: number,
): { cos: Float32Array; sin: Float32Array } {
  const frequencies = axes.flatMap((dim, axis) =>
    Array.from({ length: dim / 2 }, (_, i) => ({ axis, omega: ROPE_THETA ** ((-2 * i) / dim) })),
  );
  const tokens = textTokens + rows * columns;
  const [cos, sin] = [0, 1].map(() => new Float32Array(tokens * frequencies.length)) as [Float32Array, Float32Array];
  for (let token = 0; token < tokens; token++) {
    const i = token - textTokens;
    const position = i < 0 ? [0, 0, 0] : [0, Math.floor(i / columns), i % columns];
    frequencies.forEach(({ axis, omega }, j) => {
      const angle = (position[axis] as number) * omega;
      cos[token * frequencies.length + j] = Math.cos(angle);
      sin[token * frequencies.length + j] = Math.sin(angle);
    });
  }
  return { cos, sin };
}
