import { guidanceRows } from "../../denoising/index.js";
import { fluxSizes } from "../../models/flux.js";
import type { FluxConfig } from "../../models/flux-config.js";
import type { DrawingDefaults } from "../drawing-defaults.js";
import type { Condition, Family, Subject } from "../family.js";
import { checkFinite, checkInteger } from "../option-types.js";
import { type SubjectOptions, subjectTypes } from "../subject-options.js";
import type { PromptEncoder, PromptTexts } from "./flux-prompts.js";
import { checkSide, conditionTable, examplePrompts, given, interned, promptTexts } from "./prompt-requests.js";

/** Latent pixels along a side of a token. */
export const PATCH = 2;

/** diffusers' defaults of `FluxPipeline`. */
const diffusersDefaults = {
  ...{ numInferenceSteps: 28, guidanceScale: 3.5, trueCfgScale: 1, maxSequenceLength: 512 },
  ...{ height: 1024, width: 1024, examples: examplePrompts },
};
const MAX_SEQUENCE_LENGTH = 512;

/** What the transformer is told: a prompt, and the guidance that it takes as an input. */
interface FluxCondition extends PromptTexts {
  readonly guidance: number;
}

const fluxOptions = [
  ...(["prompt", "prompt2", "negativePrompt", "negativePrompt2"] as const),
  ...(["trueCfgScale", "height", "width", "maxSequenceLength"] as const),
] satisfies readonly (keyof SubjectOptions)[];

/** Requests give prompts. @param stride pixels of the image along a side of a latent pixel */
export function fluxFamily(
  { guidanceEmbeds, pooledProjectionDim, jointAttentionDim }: FluxConfig,
  stride: number,
  own: DrawingDefaults,
  encoder: PromptEncoder,
): Family {
  const defaults = { ...diffusersDefaults, ...(!guidanceEmbeds && { guidanceScale: 1 }), ...own };
  const side = PATCH * stride;
  const options = Object.fromEntries(fluxOptions.map((name) => [name, subjectTypes[name]]));

  return {
    subjectOption: "prompt",
    options,
    examples: defaults.examples,
    defaults,
    classes: new Map(),

    drawing(request) {
      const { height = defaults.height, width = defaults.width, guidanceScale } = request;
      const { maxSequenceLength = defaults.maxSequenceLength, trueCfgScale = defaults.trueCfgScale } = request;
      checkSide("height", height, side);
      checkSide("width", width, side);
      checkInteger("maxSequenceLength", maxSequenceLength, 1, MAX_SEQUENCE_LENGTH);
      checkFinite("trueCfgScale", trueCfgScale);
      const texts = promptTexts(request, defaults.negativePrompt);
      const guided = trueCfgScale > 1 && texts.some(({ negativePrompt }) => negativePrompt !== undefined);
      const guidance = guidanceEmbeds ? (guidanceScale ?? defaults.guidanceScale) : 0;
      const conditionOf = interned((prompt: string, prompt2: string): FluxCondition => {
        return { prompt, prompt2, maxSequenceLength, guidance };
      });
      const [rows, columns] = [height / side, width / side];
      return {
        subjects: texts.map((about): Subject => {
          const { prompt, prompt2 = prompt, negativePrompt = "", negativePrompt2 = negativePrompt } = about;
          const shown = { title: prompt, prompt, ...given(about, ["prompt2"]) };
          if (!guided) return { rows: [{ condition: conditionOf(prompt, prompt2), weight: 1 }], about: shown };
          return {
            rows: guidanceRows<Condition>(
              trueCfgScale,
              conditionOf(prompt, prompt2),
              conditionOf(negativePrompt, negativePrompt2),
            ),
            about: { ...shown, ...given(about, ["negativePrompt", "negativePrompt2"]) },
          };
        }),
        sizes: { [fluxSizes.rows]: rows, [fluxSizes.columns]: columns, [fluxSizes.text]: maxSequenceLength },
        sampling: { imageTokens: rows * columns, timestepSpacing: "trailing" },
        settings: { trueCfgScale: guided ? trueCfgScale : 1, height, width, maxSequenceLength },
        notes: notesOf(request, guided, guidanceEmbeds),
      };
    },

    async encode(conditions, signal) {
      const texts = conditions as readonly FluxCondition[];
      const { encoded, notes } = await encoder.encode(texts, signal);
      const length = texts[0]?.maxSequenceLength ?? 0;
      return {
        notes,
        feeds: {
          pooled_projection: conditionTable(
            [pooledProjectionDim],
            encoded.map(({ pooled }) => pooled),
          ),
          encoder_hidden_states: conditionTable(
            [length, jointAttentionDim],
            encoded.map(({ states }) => states),
          ),
          ...(guidanceEmbeds && {
            guidance: conditionTable(
              [],
              texts.map(({ guidance }) => Float32Array.of(guidance)),
            ),
          }),
        },
      };
    },
  };
}

/** What was asked for and has no effect. */
function notesOf(request: Parameters<Family["drawing"]>[0], guided: boolean, guidanceEmbeds: boolean): string[] {
  const { guidanceScale, trueCfgScale = 1, negativePrompt } = request;
  const notes = [];
  if (guidanceScale !== undefined && !guidanceEmbeds) {
    notes.push(
      "guidanceScale has no effect: this model was not distilled to take it. It is guided by trueCfgScale and negativePrompt.",
    );
  }
  if (trueCfgScale > 1 && !guided) notes.push('trueCfgScale has no effect without a negativePrompt, which may be "".');
  if (negativePrompt !== undefined && !guided) notes.push("negativePrompt has no effect: trueCfgScale is not above 1.");
  return notes;
}
