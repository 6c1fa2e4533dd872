import { writeFileSync } from "node:fs";
import { DiffusionPipeline, encodePng } from "femo";

const pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
const { images, report } = await pipeline.generate({ classLabels: ["lorelei", "micah"], seed: 7, cache: "femo" });
for (const image of images) writeFileSync(`${image.className}.png`, encodePng(image));
console.log(`${report.fullSteps.length} of ${report.numInferenceSteps} steps in full`);
console.log(`${report.flops.speedup.toFixed(2)} times fewer operations`);
await pipeline.close();
