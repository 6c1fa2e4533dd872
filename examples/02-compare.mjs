import { writeFile } from "node:fs/promises";
import { DiffusionPipeline, femo } from "femo";
import { compare, comparisonHtml, comparisonTable } from "femo/studies";

const pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
const comparison = await compare(pipeline, {
  classLabels: ["lorelei"],
  numInferenceSteps: 20,
  variants: [
    { name: "FEMO", cache: femo({ interval: 4 }) },
    { name: "6 steps", numInferenceSteps: 6 },
  ],
  onResult: ({ variant, durationMs }) => console.log(variant, durationMs),
});
console.log(comparisonTable(comparison));
await writeFile("report.html", comparisonHtml(comparison));
await pipeline.close();
