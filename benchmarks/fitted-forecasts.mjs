/**
 * What scalars that are fitted to a model would gain over published forecasts, at every level: the weights of the last two or
 * three full steps, one for each step of the schedule, by least squares over half of the images, and errors of the other half.
 *
 *     npm run build && node benchmarks/fitted-forecasts.mjs [--model avatars-dit] [--levels output,stack,module] [--images 16] [--interval 5] [--threads 1]
 *
 * Paths of features are recorded without a cache, of the feature in the middle of the network at each level, so these are
 * errors of forecasts from true features, mean over steps and images, not of images.
 */
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { ablation, forecastingMethods, recordTrajectories } from "femo/studies";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "avatars-dit" },
    levels: { type: "string", default: "output,stack,module" },
    images: { type: "string", default: "16" },
    interval: { type: "string", default: "5" },
    seed: { type: "string", default: "500" },
    threads: { type: "string" },
  },
});
const [images, interval, seed] = [values.images, values.interval, values.seed].map(Number);
const pipeline = await DiffusionPipeline.fromPretrained(values.model, {
  ...(values.threads && { threads: Number(values.threads) }),
});
const { examples, subjectOption } = pipeline;
const subjects = Array.from({ length: images }, (_, i) => examples[i % examples.length]);

/** Weights c of features k with the least error of step s over the paths. */
function leastSquares(grams, s, full) {
  const matrix = full.map((a) => full.map((b) => grams.reduce((sum, gram) => sum + gram[a][b] / gram[s][s], 0)));
  const wanted = full.map((a) => grams.reduce((sum, gram) => sum + gram[s][a] / gram[s][s], 0));
  const rows = matrix.map((row, i) => [...row.with(i, row[i] * (1 + 1e-9)), wanted[i]]);
  rows.forEach((own, i) => {
    for (const row of rows) {
      const factor = row === own ? 0 : row[i] / own[i];
      for (let j = i; j < row.length; j++) row[j] -= factor * own[j];
    }
  });
  return rows.map((row, i) => row.at(-1) / row[i]);
}

function relativeError(gram, s, full, weights) {
  let square = gram[s][s];
  full.forEach((a, i) => {
    square -= 2 * weights[i] * gram[s][a];
    full.forEach((b, j) => {
      square += weights[i] * weights[j] * gram[a][b];
    });
  });
  return Math.sqrt(Math.max(0, square) / gram[s][s]);
}

console.log("level | feature | the best published | fitted, two features | three");
for (const level of values.levels.split(",")) {
  const paths = await recordTrajectories(pipeline, { [subjectOption]: subjects, level, seed, batchSize: 4 });
  const half = Math.floor(images / 2);
  const gramsOf = (some) => some.flatMap(({ rows }) => rows.map(({ gram }) => gram));
  const [fitted, judged] = [gramsOf(paths.trajectories.slice(0, half)), paths.trajectories.slice(half)];
  const published = forecastingMethods.flatMap((method) =>
    [1, 2].flatMap((order) => {
      try {
        const cache = { method, ...("order" in (pipeline.presets[method] ?? {}) && { order }) };
        return ablation({ ...paths, trajectories: judged }, cache, { interval: [interval] }).map((row) => ({
          method,
          ...row,
        }));
      } catch {
        return []; // not with this order
      }
    }),
  );
  const errorOf = ({ relativeError }) => relativeError?.mean ?? Number.POSITIVE_INFINITY;
  const [best] = published.toSorted((a, b) => errorOf(a) - errorOf(b));
  const errors = [2, 3].map((count) => {
    const found = [];
    for (let s = 0; s < paths.timesteps.length; s++) {
      if (s % interval === 0) continue;
      const last = s - (s % interval);
      const full = Array.from({ length: count }, (_, i) => last - i * interval).filter((step) => step >= 0);
      const weights = leastSquares(fitted, s, full);
      found.push(...gramsOf(judged).map((gram) => relativeError(gram, s, full, weights)));
    }
    return found.reduce((a, b) => a + b) / found.length;
  });
  const { order, beta } = /** @type {{ order?: number, beta?: number }} */ (best.settings);
  const name = [best.method, order && `order ${order}`, beta && `beta ${beta}`].filter(Boolean).join(", ");
  console.log(
    [level, paths.site, `${errorOf(best).toFixed(4)} (${name})`, ...errors.map((x) => x.toFixed(4))].join(" | "),
  );
}
await pipeline.close();
