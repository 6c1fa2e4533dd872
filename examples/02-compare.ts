import { compare, comparisonTable, DiffusionPipeline } from "femo";

const pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
const comparison = await compare(pipeline, {
  classLabels: ["lorelei", "micah"],
  variants: [
    { name: "FEMO", cache: { method: "femo", interval: 5 } },
    { name: "11 steps", numInferenceSteps: 11 },
  ],
});
console.log(comparisonTable(comparison));
await pipeline.close();
