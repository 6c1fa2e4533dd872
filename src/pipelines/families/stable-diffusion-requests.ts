import { guidanceRows } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import { unetSizes } from "../../models/unet.js";
import type { UNetConfig } from "../../models/unet-config.js";
import type { DrawingDefaults } from "../drawing-defaults.js";
import type { Condition, Family, Subject } from "../family.js";
import { checkFinite, checkInteger } from "../option-types.js";
import { type SubjectOptions, subjectTypes } from "../subject-options.js";
import { beginnings, checkBeginning } from "./beginnings.js";
import { checkSide, conditionTable, examplePrompts, given, interned, promptTexts } from "./prompt-requests.js";
import type { ClipPromptEncoder } from "./stable-diffusion-prompts.js";

/** What the requests of a model go by, beside its networks. */
export interface DiffusionFacts {
  readonly config: UNetConfig;
  /** Pixels of the image along a side of a latent pixel. */
  readonly stride: number;
  /** Without a negative prompt guidance leads away from zeros, not from the encoding of "". */
  readonly forceZerosForEmptyPrompt: boolean;
  readonly own: DrawingDefaults;
}

/** diffusers' defaults: of Stable Diffusion 1 and 2, of XL, and of a model distilled to few steps (LCM). */
const guidanceDefaults = { plain: 7.5, xl: 5, lcm: 8.5 } as const;
const REPAINTING_GUIDANCE = 7.5;
const strengthDefaults = { plain: { image: 0.8, mask: 1 }, xl: { image: 0.3, mask: 0.9999 } } as const;
const STEPS = 50;
const LCM_STEPS = 4;
const AESTHETIC_SCORE = 6;
const NEGATIVE_AESTHETIC_SCORE = 2.5;

/** Numbers that XL is told, heights first. */
type Pair = readonly [number, number];

/** What the U-Net is told. */
interface DiffusionCondition {
  /** Undefined: zeros in place of any text. */
  readonly prompt: string | undefined;
  readonly prompt2: string;
  readonly clipSkip: number | undefined;
  readonly timeIds: readonly number[];
  /** Of a model that takes it as an input. */
  readonly guidance: number;
}

const xlOptions = [
  "prompt2",
  "negativePrompt2",
  "originalSize",
  "cropsCoordsTopLeft",
  "targetSize",
  "negativeOriginalSize",
  "negativeCropsCoordsTopLeft",
  "negativeTargetSize",
  "denoisingEnd",
  "denoisingStart",
  "aestheticScore",
  "negativeAestheticScore",
] as const satisfies readonly (keyof SubjectOptions)[];
const plainOptions = [
  "prompt",
  "negativePrompt",
  "height",
  "width",
  "clipSkip",
  "guidanceRescale",
  "image",
  "strength",
  "maskImage",
] as const satisfies readonly (keyof SubjectOptions)[];

/** Requests of Stable Diffusion 1, 2 and XL: prompts and, of XL, the sizes that it is told. */
export function stableDiffusionFamily(
  { config, stride, forceZerosForEmptyPrompt, own }: DiffusionFacts,
  encoder: ClipPromptEncoder,
): Family {
  const { addition, timeCondProjDim, sampleSize = [64, 64], crossAttentionDim } = config;
  const isDistilled = timeCondProjDim !== undefined;
  const usual = isDistilled ? "lcm" : addition ? "xl" : "plain";
  const defaults = {
    ...{ numInferenceSteps: isDistilled ? LCM_STEPS : STEPS, guidanceScale: guidanceDefaults[usual] },
    examples: examplePrompts,
    ...{ height: sampleSize[0] * stride, width: sampleSize[1] * stride, ...own },
  };
  const names = [...plainOptions, ...(addition ? xlOptions : [])];
  const options = Object.fromEntries(names.map((name) => [name, subjectTypes[name]]));
  const [tokens] = encoder.dims;

  return {
    subjectOption: "prompt",
    options,
    examples: defaults.examples,
    defaults,
    classes: new Map(),

    drawing(request) {
      const beginningOf = beginnings(request, stride);
      const shownSize = beginningOf?.size ?? defaults;
      const { height = shownSize.height, width = shownSize.width, clipSkip, guidanceRescale = 0 } = request;
      const repaints = request.maskImage !== undefined;
      const {
        guidanceScale = repaints && !own.guidanceScale && !isDistilled ? REPAINTING_GUIDANCE : defaults.guidanceScale,
      } = request;
      checkSide("height", height, stride);
      checkSide("width", width, stride);
      if (beginningOf) checkBeginning(beginningOf.size, { height, width });
      const { strength = strengthDefaults[addition ? "xl" : "plain"][repaints ? "mask" : "image"] } = request;
      checkFinite("strength", strength);
      checkFinite("guidanceRescale", guidanceRescale);
      if (clipSkip !== undefined) checkInteger("clipSkip", clipSkip, 0, encoder.maxClipSkip);
      const share = sharedSteps(request);
      const guided = guidanceScale > 1 && !isDistilled;
      const guidance = isDistilled ? guidanceScale : 0;
      const ids = addition ? timeIds(request, [height, width], addition.timeIds) : { own: [], negative: [] };
      const condition = interned((of: DiffusionCondition): Condition => of);
      return {
        ...(beginningOf && { strength }),
        ...share,
        subjects: promptTexts(request, own.negativePrompt).map((about, i): Subject => {
          const beginning = beginningOf?.of(i);
          const { prompt, prompt2 = prompt, negativePrompt, negativePrompt2 = negativePrompt ?? "" } = about;
          const shown = { title: prompt, prompt, ...given(about, ["prompt2"]) };
          const wanted = condition({ prompt, prompt2, clipSkip, timeIds: ids.own, guidance });
          if (!guided) return { rows: [{ condition: wanted, weight: 1 }], about: shown, beginning };
          const unwanted = condition({
            prompt: negativePrompt ?? (forceZerosForEmptyPrompt ? undefined : ""),
            prompt2: negativePrompt2,
            ...{ clipSkip: undefined, timeIds: ids.negative, guidance }, // diffusers skips layers of the prompt alone
          });
          return {
            beginning,
            rows: guidanceRows<Condition>(guidanceScale, wanted, unwanted),
            about: { ...shown, ...given(about, ["negativePrompt", "negativePrompt2"]) },
          };
        }),
        sizes: { [unetSizes.height]: height / stride, [unetSizes.width]: width / stride, [unetSizes.text]: tokens },
        guidanceRescale: guided ? guidanceRescale : 0,
        settings: {
          ...{ height, width },
          ...(beginningOf && { strength, guidanceScale }),
          ...share,
          ...(clipSkip !== undefined && { clipSkip }),
          ...(guided && guidanceRescale > 0 && { guidanceRescale }),
        },
        notes: notesOf(request, guided, isDistilled),
      };
    },

    async encode(conditions, signal) {
      const all = conditions as readonly DiffusionCondition[];
      const texts = all.flatMap(({ prompt, ...rest }) => (prompt === undefined ? [] : [{ ...rest, prompt }]));
      const { encoded, notes } = await encoder.encode(texts, signal);
      let next = 0;
      const read = all.map(({ prompt }) => (prompt === undefined ? undefined : encoded[next++]));
      const [, width] = encoder.dims;
      const zeros = new Float32Array(tokens * width);
      return {
        notes,
        feeds: {
          encoder_hidden_states: conditionTable(
            [tokens, crossAttentionDim],
            read.map((of) => of?.states ?? zeros),
          ),
          ...(addition && {
            text_embeds: conditionTable(
              [addition.pooledProjectionDim],
              read.map((of) => of?.pooled ?? new Float32Array(addition.pooledProjectionDim)),
            ),
            time_ids: conditionTable(
              [addition.timeIds],
              all.map((of) => Float32Array.from(of.timeIds)),
            ),
          }),
          ...(timeCondProjDim !== undefined && {
            timestep_cond: conditionTable(
              [timeCondProjDim],
              all.map(({ guidance }) => guidanceEmbedding(guidance, timeCondProjDim)),
            ),
          }),
        },
      };
    },
  };
}

/** Which part of the noise is left to this model, where several share the steps. @throws FemoError E_OPTION if that is none */
function sharedSteps({ denoisingStart, denoisingEnd }: SubjectOptions) {
  for (const [name, value] of Object.entries({ denoisingStart, denoisingEnd })) {
    if (value === undefined || (value > 0 && value < 1)) continue;
    throw new FemoError(
      "E_OPTION",
      `${name}: expected a number above 0 and below 1, found ${value}: leave it out for all`,
    );
  }
  if (denoisingStart !== undefined && denoisingEnd !== undefined && denoisingStart >= denoisingEnd) {
    throw new FemoError(
      "E_OPTION",
      `denoisingEnd: expected a number above denoisingStart, ${denoisingStart}, found ${denoisingEnd}`,
    );
  }
  return {
    ...(denoisingStart !== undefined && { denoisingStart }),
    ...(denoisingEnd !== undefined && { denoisingEnd }),
  };
}

/** The sizes that XL is told, and those that guidance leads away from: (height, width) of the original, its crop, the target's. */
function timeIds(request: SubjectOptions, size: Pair, count: number) {
  const { originalSize = size, cropsCoordsTopLeft = [0, 0], targetSize = size } = request;
  const { negativeOriginalSize = originalSize, negativeCropsCoordsTopLeft, negativeTargetSize = targetSize } = request;
  const { aestheticScore = AESTHETIC_SCORE, negativeAestheticScore = NEGATIVE_AESTHETIC_SCORE } = request;
  if (count === 5) {
    const crop = negativeCropsCoordsTopLeft ?? cropsCoordsTopLeft;
    return {
      own: [...originalSize, ...cropsCoordsTopLeft, aestheticScore],
      negative: [...negativeOriginalSize, ...crop, negativeAestheticScore],
    };
  }
  const negativeCrop = negativeCropsCoordsTopLeft ?? (request.negativeOriginalSize ? [0, 0] : cropsCoordsTopLeft);
  return {
    own: [...originalSize, ...cropsCoordsTopLeft, ...targetSize],
    negative: [...negativeOriginalSize, ...negativeCrop, ...negativeTargetSize],
  };
}

/** Sinusoids of the guidance scale, sines first (Luo et al., arXiv 2310.04378).  [width] */
function guidanceEmbedding(guidance: number, width: number): Float32Array {
  const half = Math.floor(width / 2);
  const at = (i: number): number => (guidance - 1) * 1000 * Math.exp((-Math.log(10_000) * i) / (half - 1));
  return Float32Array.from({ length: width }, (_, i) => {
    if (i < half) return Math.sin(at(i));
    return i < 2 * half ? Math.cos(at(i - half)) : 0;
  });
}

/** What was asked for and has no effect. */
function notesOf(request: SubjectOptions, guided: boolean, isDistilled: boolean): string[] {
  if (guided) return [];
  const why = isDistilled
    ? "this model was distilled to take guidanceScale as an input, and is not guided otherwise"
    : "guidanceScale is not above 1";
  return (["negativePrompt", "guidanceRescale"] as const)
    .filter((name) => request[name] !== undefined)
    .map((name) => `${name} has no effect: ${why}.`);
}

/** @throws FemoError E_CONFIG if text encoders and U-Net do not fit each other */
export function checkText(
  name: string,
  { crossAttentionDim, addition }: UNetConfig,
  encoder: ClipPromptEncoder,
  projectionDim: number | undefined,
): void {
  const [, width] = encoder.dims;
  const fail = (field: string, wanted: number, what: string, found: number | undefined): never => {
    throw new FemoError("E_CONFIG", `${name}: unet/config.json: ${field} is ${wanted}, but ${what} is ${found}`);
  };
  if (width !== crossAttentionDim)
    fail("cross_attention_dim", crossAttentionDim, "the width of the text encoders", width);
  if (addition && addition.pooledProjectionDim !== projectionDim)
    fail(
      "the width of pooled text",
      addition.pooledProjectionDim,
      "the projection_dim of text_encoder_2",
      projectionDim,
    );
}
