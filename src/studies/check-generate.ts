import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";

/**
 * Has a request checked and not run, so that a bad one does not come to light after the work of those before it.
 * @throws FemoError E_OPTION if an option is out of range
 */
export async function checkGenerate(pipeline: DiffusionPipeline, request: GenerateOptions): Promise<void> {
  const stop = new Error("checked");
  await pipeline.generate({ ...request, signal: AbortSignal.abort(stop) }).catch((error: unknown) => {
    if (error !== stop) throw error;
  });
}
