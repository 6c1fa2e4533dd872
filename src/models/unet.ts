import { FemoError } from "../errors.js";
import { type Dim, productDim, type Value } from "../graph/index.js";
import { BATCH, type Input, type Model, once, type Trace } from "../tracing/index.js";
import type { UNetBlock, UNetConfig, UNetTransformer } from "./unet-config.js";

/** The sizes that requests choose: height and width in latent pixels, which are pixels / 8, and tokens of the prompt. */
export const unetSizes = { height: "height", width: "width", text: "text" } as const;

/**
 * The level at which one hidden state is kept, the only feature that it has: what enters the j-th layer of the way up,
 * counted from the end, before its skip is joined to it (DeepCache, Ma et al., arXiv 2312.00858). 0 is the shallowest cut.
 */
export const deepLevel = (j: number): string => `deep.${j}`;

const TRANSFORMER_NORM_EPS = 1e-6; // of the group norm before tokens, whatever the config says
const LAYER_NORM_EPS = 1e-5;
const MLP_RATIO = 4;

/**
 * U-Net of latent diffusion with cross-attention to a prompt (Rombach et al., arXiv 2112.10752), diffusers'
 * `UNet2DConditionModel` of Stable Diffusion 1, 2 and XL; tensor names as in diffusers. `timestep` runs from 999 to 0.
 * B: batch, C and D: channels, H and W: height and width of a resolution, each half of the one before, rounded up;
 * T: tokens, H W of them, S: tokens of the prompt.
 *
 * Inputs by condition: `encoder_hidden_states`; with `addition` `text_embeds` (pooled) and `time_ids` (numbers as
 * SDXL lists them, heights first); with `timeCondProjDim` `timestep_cond`. By image, for inpainting: `mask` (1: repaint) and
 * `masked_image_latents`.
 * @param sizes in numbers for graphs of one size, else symbols
 * @throws FemoError E_CONFIG if input channels are neither those of a latent nor of one with mask and masked image
 */
export function unet(config: UNetConfig, sizes: Readonly<Record<keyof typeof unetSizes, Dim>> = unetSizes): Model {
  const { downBlocks, midBlock, upBlocks, inChannels, outChannels, normEps, normNumGroups, addition } = config;
  const { height, width, text } = sizes;
  const [firstChannels, deepestChannels] = [downBlocks[0], downBlocks.at(-1)].map((block) => block?.channels) as [
    number,
    number,
  ];
  const embeddingWidth = 4 * firstChannels;
  const repaints = inChannels === 2 * outChannels + 1;
  const latentChannels = repaints ? outChannels : inChannels;
  if (latentChannels > outChannels) {
    throw new FemoError(
      "E_CONFIG",
      `in_channels: expected ${outChannels}, as out_channels, or ${2 * outChannels + 1} for inpainting, found ${inChannels}`,
    );
  }
  const hasText = [...[...downBlocks, ...upBlocks].flatMap(({ layers }) => layers), midBlock?.transformer].some(
    Boolean,
  );

  const build = (t: Trace): Value => {
    const conv = (x: Value, name: string, outputs: number, { kernel = 3, stride = 1 } = {}): Value =>
      x.conv(
        t.weight(`${name}.weight`, [outputs, x.shape[1] as number, kernel, kernel]),
        t.weight(`${name}.bias`, [outputs]),
        { padding: (kernel - 1) / 2, stride },
      );
    const linear = (x: Value, name: string, outputs: number, bias = true): Value =>
      x.linear(
        t.weight(`${name}.weight`, [outputs, x.shape.at(-1) as number]),
        bias ? t.weight(`${name}.bias`, [outputs]) : null,
      );
    const affine = (name: string, channels: number): [scale: Value, bias: Value] => [
      t.weight(`${name}.weight`, [channels]),
      t.weight(`${name}.bias`, [channels]),
    ];
    const groupNorm = (x: Value, name: string, epsilon = normEps): Value =>
      x.groupNorm(normNumGroups, epsilon, ...affine(name, x.shape[1] as number));
    const layerNorm = (x: Value, name: string): Value =>
      x.layerNorm(LAYER_NORM_EPS, ...affine(name, x.shape.at(-1) as number));

    const embed = (x: Value, name: string): Value =>
      linear(linear(x, `${name}.linear_1`, embeddingWidth).silu(), `${name}.linear_2`, embeddingWidth);
    /** [B, n] to [B, n channels] */
    const sinusoids = (x: Value, channels: number): Value => {
      const [batch, count] = x.shape as [Dim, number];
      const half = channels / 2;
      const frequencies = Float32Array.from({ length: half }, (_, i) =>
        Math.exp((-Math.log(10_000) * i) / (half - config.freqShift)),
      );
      const angle = x.unsqueeze(2).mul(t.graph.constant(frequencies, [half]));
      const [first, second] = config.flipSinToCos ? [angle.cos(), angle.sin()] : [angle.sin(), angle.cos()];
      return first.concat([second], 2).reshape([batch, count * channels]);
    };
    /** What residual blocks are told: the timestep and, if the model takes them, guidance, pooled text and sizes.  [B, 4 C] */
    const condition = once(() => {
      const moment = sinusoids(t.input("timestep").unsqueeze(1), firstChannels);
      const time = embed(
        config.timeCondProjDim === undefined
          ? moment
          : moment.add(linear(t.input("timestep_cond"), "time_embedding.cond_proj", firstChannels, false)),
        "time_embedding",
      );
      if (!addition) return time.silu();
      const numbers = sinusoids(t.input("time_ids"), addition.timeEmbedDim);
      return time.add(embed(t.input("text_embeds").concat([numbers], 1), "add_embedding")).silu();
    });
    /** [B, D, 1, 1] */
    const fromCondition = (name: string, channels: number): Value =>
      t
        .hoist("pair", name, [BATCH, channels], () => linear(condition(), name, channels))
        .reshape([BATCH, channels, 1, 1]);

    /** What a residual block adds to its shortcut.  [B, C, H, W] to [B, D, H, W] */
    const residual = (x: Value, name: string, channels: number): Value => {
      const h = conv(groupNorm(x, `${name}.norm1`).silu(), `${name}.conv1`, channels);
      const told = h.add(fromCondition(`${name}.time_emb_proj`, channels));
      const seen = name === "down_blocks.0.resnets.0" ? t.mark("modulated", told) : told;
      return conv(groupNorm(seen, `${name}.norm2`).silu(), `${name}.conv2`, channels);
    };
    const shortcut = (x: Value, name: string, channels: number): Value =>
      x.shape[1] === channels ? x : conv(x, `${name}.conv_shortcut`, channels, { kernel: 1 });

    /** Keys or values of the prompt: they change with the prompt alone.  [B, S, C] */
    const fromText = (name: string, channels: number): Value =>
      t.hoist("condition", name, [BATCH, text, channels], () =>
        linear(t.input("encoder_hidden_states"), name, channels, false),
      );
    /** Transformer block.  x: [B, T, C] */
    const transformerBlock = (x: Value, name: string, heads: number): Value => {
      const channels = x.shape[2] as number;
      const attention = (part: string, of: Value, from: (name: string) => Value): Value => {
        const [key, value] = [from(`${part}.to_k`), from(`${part}.to_v`)];
        const a = t.attention(part, linear(of, `${part}.to_q`, channels, false), key, value, heads);
        return linear(a, `${part}.to_out.0`, channels);
      };
      const a = t.feature({ level: "module", name: `${name}.attn1` }, x, (tokens) => {
        const normed = layerNorm(tokens, `${name}.norm1`);
        return attention(`${name}.attn1`, normed, (part) => linear(normed, part, channels, false));
      });
      const h = x.add(a);
      const c = t.feature({ level: "module", name: `${name}.attn2` }, h, (tokens) =>
        attention(`${name}.attn2`, layerNorm(tokens, `${name}.norm2`), (part) => fromText(part, channels)),
      );
      const y = h.add(c);
      const m = t.feature({ level: "module", name: `${name}.ff` }, y, (tokens) => {
        const wide = linear(layerNorm(tokens, `${name}.norm3`), `${name}.ff.net.0.proj`, 2 * MLP_RATIO * channels);
        const [values, gates] = wide.chunk(2, 2) as [Value, Value]; // GEGLU
        return linear(values.mul(gates.gelu("none")), `${name}.ff.net.2`, channels);
      });
      return y.add(m);
    };
    /** What a transformer over all pixels adds to them.  x: [B, C, H, W] */
    const transformer = (x: Value, name: string, { heads, depth }: UNetTransformer): Value =>
      t.feature({ level: "transformer", name }, x, (image) => {
        const [batch, channels, ...area] = image.shape as [Dim, number, Dim, Dim];
        const tokensOf = (y: Value): Value => y.reshape([batch, channels, productDim(area)]).transpose([0, 2, 1]);
        const imageOf = (y: Value): Value => y.transpose([0, 2, 1]).reshape(image.shape, image);
        const project = (y: Value, part: string): Value => conv(y, `${name}.${part}`, channels, { kernel: 1 });
        const normed = groupNorm(image, `${name}.norm`, TRANSFORMER_NORM_EPS);
        let tokens = config.useLinearProjection
          ? linear(tokensOf(normed), `${name}.proj_in`, channels)
          : tokensOf(project(normed, "proj_in"));
        for (let i = 0; i < depth; i++) tokens = transformerBlock(tokens, `${name}.transformer_blocks.${i}`, heads);
        return config.useLinearProjection
          ? imageOf(linear(tokens, `${name}.proj_out`, channels))
          : project(imageOf(tokens), "proj_out");
      });

    /** A residual block and, if there is one, a transformer: what they add is one feature.  [B, C, H, W] to [B, D, H, W] */
    const layer = (x: Value, block: string, i: number, { channels, layers }: UNetBlock): Value => {
      const skip = shortcut(x, `${block}.resnets.${i}`, channels);
      const site = { level: "block", name: `${block}.layers.${i}`, shape: [BATCH, channels, ...x.shape.slice(2)] };
      const change = t.feature(site, x, (h) => {
        const added = residual(h, `${block}.resnets.${i}`, channels);
        const attends = layers[i];
        return attends ? added.add(transformer(skip.add(added), `${block}.attentions.${i}`, attends)) : added;
      });
      return skip.add(site.name === "down_blocks.0.layers.0" ? t.mark("first block", change) : change);
    };
    /** The deepest part, which keeps size and channels.  x: [B, C, H, W] */
    const middle = (x: Value): Value => {
      if (!midBlock) return x;
      const change = t.feature({ level: "block", name: "mid_block" }, x, (h) => {
        const first = residual(h, "mid_block.resnets.0", deepestChannels);
        if (!midBlock.transformer) return first;
        const attended = first.add(transformer(h.add(first), "mid_block.attentions.0", midBlock.transformer));
        return attended.add(residual(h.add(attended), "mid_block.resnets.1", deepestChannels));
      });
      return x.add(change);
    };

    const rungs = ladder();
    /** What enters the j-th layer of the way up from the end: all that lies deeper than its skip. */
    const deeper = (j: number, skip: Value): Value => {
      const rung = rungs[j + 1];
      const shape = [BATCH, rung?.channels ?? deepestChannels, ...skip.shape.slice(2)];
      return t.feature({ level: deepLevel(j), name: deepLevel(j), shape }, skip, (outer) => {
        if (!rung) return middle(outer);
        const inner = rung.down(outer);
        return rung.up(deeper(j + 1, inner), inner, outer);
      });
    };

    const output = { level: "output", name: "output", shape: [BATCH, outChannels, height, width] };
    return t.feature(output, t.input("sample"), (sample) => {
      const input = repaints ? sample.concat([t.input("mask"), t.input("masked_image_latents")], 1) : sample;
      const [outermost] = rungs as [Rung];
      const x = outermost.down(input);
      const y = t.feature({ level: "stack", name: "stack", residual: true }, x, (h) =>
        outermost.up(deeper(0, h), h, h),
      );
      return conv(groupNorm(y, "conv_norm_out").silu(), "conv_out", outChannels);
    });

    /** The steps of the way down with the layers of the way up that take in what they give, from the outermost to the deepest. */
    function ladder(): Rung[] {
      const downs: Rung["down"][] = [(x) => conv(x, "conv_in", firstChannels)];
      for (const [i, block] of downBlocks.entries()) {
        const name = `down_blocks.${i}`;
        for (const k of block.layers.keys()) downs.push((x) => layer(x, name, k, block));
        const isLast = i === downBlocks.length - 1;
        if (!isLast) downs.push((x) => conv(x, `${name}.downsamplers.0.conv`, block.channels, { stride: 2 }));
      }
      const ups = upBlocks.flatMap((block, i) =>
        block.layers.map((_, k): Omit<Rung, "down"> => {
          const [name, { channels, layers }] = [`up_blocks.${i}`, block];
          const upsamples = k === layers.length - 1 && i < upBlocks.length - 1;
          const up: Rung["up"] = (h, skip, outer) => {
            const y = layer(h.concat([skip], 1), name, k, block);
            return upsamples ? conv(y.resizeNearest(outer), `${name}.upsamplers.0.conv`, channels) : y;
          };
          return { channels, up };
        }),
      );
      return ups.toReversed().map((up, j) => ({ ...up, down: downs[j] as Rung["down"] }));
    }
  };

  const by =
    (varies: Input["varies"]) =>
    (name: string, shape: readonly Dim[]): Input => ({
      ...{ name, dtype: "float32", shape, varies },
    });
  const [byCondition, byImage] = [by("condition"), by("image")];
  const skips = upBlocks.reduce((sum, { layers }) => sum + layers.length, 0);
  return {
    inputs: [
      { name: "sample", dtype: "float32", shape: [latentChannels, height, width], varies: "step" },
      { name: "timestep", dtype: "float32", shape: [], varies: "timestep" },
      ...(config.timeCondProjDim === undefined ? [] : [byCondition("timestep_cond", [config.timeCondProjDim])]),
      ...(addition
        ? [byCondition("text_embeds", [addition.pooledProjectionDim]), byCondition("time_ids", [addition.timeIds])]
        : []),
      ...(hasText ? [byCondition("encoder_hidden_states", [text, config.crossAttentionDim])] : []),
      ...(repaints
        ? [byImage("mask", [1, height, width]), byImage("masked_image_latents", [outChannels, height, width])]
        : []),
    ],
    output: [outChannels, height, width],
    levels: [
      ...(hasText ? ["module", "transformer"] : []),
      "block",
      ...Array.from({ length: skips }, (_, j) => deepLevel(j)).reverse(),
      "stack",
      "output",
    ],
    chains: {},
    marks: ["modulated", "first block"],
    build,
    sized: ({ height, width, text }) => unet(config, { height, width, text } as Record<keyof typeof unetSizes, number>),
  };
}

/** A step of the way down and the layer of the way up that takes in what it gives. */
interface Rung {
  /** Of what the layer gives. */
  readonly channels: number;
  down(x: Value): Value;
  /** @param outer what the step went down from: where a resolution ends, the layer's output is brought to its size */
  up(h: Value, skip: Value, outer: Value): Value;
}
