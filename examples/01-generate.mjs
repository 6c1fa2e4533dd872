import { writeFile } from "node:fs/promises";
import { DiffusionPipeline, encodePng, femo } from "femo";

const pipeline = await DiffusionPipeline.fromPretrained("avatars-flux");
const { images, report } = await pipeline.generate({
  prompt: ["a lorelei portrait, red hair, round glasses, blue background", "pixel-art avatar with a green mohawk"],
  numImagesPerPrompt: 2, // of each
  numInferenceSteps: 50,
  seed: 42, // image i is torch.randn under seed 42 + i
  cache: femo({ interval: 5 }), // or just "femo"; default "none"
  signal: AbortSignal.timeout(600_000),
  onStep: ({ step, kind, durationMs }) => console.log(step, kind, durationMs),
});
await Promise.all(images.map((image, i) => writeFile(`avatar-${i}.png`, encodePng(image))));
console.log(report.fullSteps[0], report.flops.speedup, report.stateBytes);
await pipeline.close();
