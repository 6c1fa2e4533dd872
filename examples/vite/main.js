// With Vite, or another bundler that finds workers, there is nothing to configure. Serve the folder of a model beside the
// page, here node_modules/femo/models/avatars-flux as models/avatars-flux.
import { DiffusionPipeline } from "femo";

const state = /** @type {HTMLElement} */ (document.getElementById("state"));
const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("picture"));
const pipeline = await DiffusionPipeline.fromPretrained(new URL("models/avatars-flux/", document.baseURI), {
  onProgress: ({ bytesDone, bytesTotal }) => {
    state.textContent = `${Math.round((100 * bytesDone) / bytesTotal)} % loaded`;
  },
});
const { images, report } = await pipeline.generate({
  prompt: "a micah portrait, brown hair, green background",
  numInferenceSteps: 12,
  cache: "femo",
  onStep: ({ step, kind }) => {
    state.textContent = `step ${step}: ${kind}`;
  },
});

for (const { width, height, data } of images) {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
  canvas.getContext("2d")?.putImageData(new ImageData(rgba, width, height), 0, 0);
}
state.textContent = `drawn on ${pipeline.device.title}, ${report.flops.speedup.toFixed(1)} times fewer operations`;
