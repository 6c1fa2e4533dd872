import { FemoError } from "../errors.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import { checkGenerate } from "./check-generate.js";

/**
 * A request for the images that a sampler converges to, without a cache: in the request's own spacing, or in "dit" where
 * that spacing does not go to so many steps.
 * @throws FemoError E_OPTION if there cannot be so many steps
 */
export async function convergedRequest(
  pipeline: DiffusionPipeline,
  request: GenerateOptions,
  convergedSteps: number,
): Promise<GenerateOptions> {
  const own: GenerateOptions = { ...request, numInferenceSteps: convergedSteps };
  const even: GenerateOptions = { ...own, timestepSpacing: "dit" };
  if (await fits(pipeline, own)) return own;
  await checkGenerate(pipeline, even).catch((cause: unknown) => {
    throw new FemoError("E_OPTION", `convergedSteps: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
  return even;
}

const fits = (pipeline: DiffusionPipeline, request: GenerateOptions): Promise<boolean> =>
  checkGenerate(pipeline, request).then(
    () => true,
    () => false,
  );
