import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import { MEASURED_FILES, type ModelFolder } from "../weights/index.js";

const count = z.int().check(z.positive());
const schema = z.partial(
  z.strictObject({
    numInferenceSteps: count.check(z.maximum(1000)),
    guidanceScale: z.number(),
    trueCfgScale: z.number(),
    negativePrompt: z.string(),
    height: count,
    width: count,
    maxSequenceLength: count,
    examples: z.array(z.string().check(z.minLength(1))).check(z.minLength(1)),
  }),
);

/** What requests that do not say go by, as far as a model says it, and some prompts that it draws well. */
export type DrawingDefaults = { readonly [K in keyof Schema]?: NonNullable<Schema[K]> };
type Schema = z.infer<typeof schema>;

/**
 * Reads a model's `defaults.json`; without the file it says nothing.
 * @throws FemoError E_CONFIG naming each bad field
 */
export async function drawingDefaults(folder: ModelFolder): Promise<DrawingDefaults> {
  const json = await folder.measured(MEASURED_FILES.defaults);
  if (json === undefined) return {};
  const parsed = safeParse(schema, json);
  if (parsed.success) return parsed.data as DrawingDefaults; // what JSON has is not undefined
  const issues = schemaIssues(parsed.error, "the file").join("; ");
  throw new FemoError("E_CONFIG", `${folder.name}/${MEASURED_FILES.defaults}: ${issues}`);
}
