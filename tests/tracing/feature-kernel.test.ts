import { describe, expect, test } from "vitest";
import { sizeOf } from "../../src/graph/index.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { traceFeatureKernel } from "../../src/tracing/index.js";
import { engineForTests, evaluate, floats, noise, relativeError } from "../runtime/helpers.js";

const engine = engineForTests();
const rounding = 2e-6; // of float32, relative to the largest element

/** Matrix `at` of a stack of matrices, as its rows. */
function rowsOf({ dims, data }: HostTensor, at: number): Float32Array[] {
  const [rows, columns] = dims.slice(-2) as [number, number];
  return Array.from({ length: rows }, (_, i) =>
    (data as Float32Array).subarray((at * rows + i) * columns, (at * rows + i + 1) * columns),
  );
}
const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);

describe("the kernel of a full step equals float64 sums", () => {
  const shapes = [
    { history: 1, averages: 0 },
    { history: 1, averages: 1 },
    { history: 3, averages: 0 },
    { history: 2, averages: 2 },
    { history: 4, averages: 4 },
  ];
  const sizes = [1, 3].flatMap((batch) => [7, 900].map((elements) => ({ batch, elements })));
  const cases = shapes.flatMap((shape) => sizes.map((size) => ({ ...shape, ...size })));

  test.each(cases)("history $history, averages $averages, batch $batch, $elements elements", async (shape) => {
    const { history, averages, batch, elements } = shape;
    const k = history + averages;
    const feeds: Record<string, HostTensor> = {
      feature: noise([batch, 1, elements], 1),
      averages: noise([batch, averages, elements], 2),
      update: noise([batch, averages, k + 1], 3),
    };
    for (let i = 0; i < history; i++) feeds[`history:${i}`] = noise([batch, 1, elements], 10 + i);
    const all = { measure: true, update: averages > 0 };
    const found = await evaluate(engine, traceFeatureKernel({ history, averages, ...all }), feeds);
    expect(found.gram?.dims).toEqual([batch, k + 1, k + 1]);
    for (let sample = 0; sample < batch; sample++) {
      const past = Array.from({ length: history }, (_, i) => rowsOf(feeds[`history:${i}`] as HostTensor, sample));
      const stacked = [
        ...past.flat(),
        ...rowsOf(feeds.averages as HostTensor, sample),
        ...rowsOf(feeds.feature as HostTensor, sample),
      ];
      const gram = rowsOf(found.gram as HostTensor, sample).flatMap((row) => [...row]);
      const products = stacked.flatMap((a) => stacked.map((b) => dot(a, b)));
      expect(relativeError(gram, products)).toBeLessThan(rounding);
      rowsOf(feeds.update as HostTensor, sample).forEach((weights, i) => {
        const next = rowsOf(found["next-averages"] as HostTensor, sample)[i] as Float32Array;
        const wanted = Array.from({ length: elements }, (_, j) =>
          stacked.reduce((sum, row, at) => sum + (weights[at] as number) * (row[j] as number), 0),
        );
        expect(relativeError(next, wanted)).toBeLessThan(rounding);
      });
    }
    if (averages === 0) return;

    // Either half alone does the same.
    const gram = await evaluate(engine, traceFeatureKernel({ history, averages, measure: true, update: false }), feeds);
    expect(gram).toEqual({ gram: found.gram });
    const moved = await evaluate(
      engine,
      traceFeatureKernel({ history, averages, measure: false, update: true }),
      feeds,
    );
    expect(moved).toEqual({ "next-averages": found["next-averages"] });
  });

  test("one kernel serves features of any size", async () => {
    const graph = traceFeatureKernel({ history: 1, averages: 0, measure: true, update: false });
    for (const elements of [1, 10, 1000]) {
      const one = floats([1, 1, elements], new Float32Array(sizeOf([elements])).fill(1));
      const { gram } = await evaluate(engine, graph, { feature: one, "history:0": one });
      expect(gram?.data).toEqual(new Float32Array(4).fill(elements));
    }
  });
});
