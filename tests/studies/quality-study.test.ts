import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { RgbImage } from "../../src/index.js";
import {
  comparable,
  compare,
  type Judge,
  paretoFront,
  partFromJson,
  runStudy,
  type StudyCell,
  type StudyPart,
  type StudyPlan,
  type StudyRow,
  type StudyStore,
  studyCells,
  studyCsv,
  studyHtml,
  studyRows,
  type Wanted,
} from "../../src/studies/index.js";
import { qualityOf } from "../../src/studies/quality.js";
import { packRows, unpackRows } from "../../src/studies/quality-study/part.js";
import { differenceOf, type Measure, measuresOf } from "../../src/studies/quality-study/report-data.js";
import { partsOf } from "../../src/studies/quality-study/run.js";
import { fittedSolver, openTinyPipeline } from "../tiny-pipeline.js";

const { pipeline } = await openTinyPipeline();
const { pipeline: fitted } = await openTinyPipeline({
  solvers: [fittedSolver(3, "converged"), fittedSolver(4, "converged"), fittedSolver(4, "reference")],
});
const steps = { numInferenceSteps: 6 };
const images: Omit<StudyPlan, "cells"> = {
  ...{ model: "tiny", dtype: "float32", seed: 3, ...steps, convergedSteps: 12, drawing: { guidanceScale: 2 } },
  subjects: [0, 1, 2].map((subject) => ({ subject, labels: { class: String(subject) } })),
  partSize: 4,
};
const cells = await studyCells(pipeline, {
  ...{ ...steps, drawing: images.drawing, subjects: images.subjects },
  ...{ methods: ["fora", "femo", "teaCache"], levels: ["module", "output"], speedups: [2, 3] },
});
const plan: StudyPlan = { ...images, cells };

/** Says of an image its mean level, and how far the means of two are from each other. */
const mean = ({ data }: RgbImage): number => data.reduce((sum, level) => sum + level, 0) / data.length;
const judge: Judge = {
  ...{ layers: ["level"], population: () => undefined },
  judge: async (drawn) =>
    drawn.map((image) => ({
      scores: { accuracy: 1 },
      features: { level: Float32Array.of(mean(image), image.data[0] as number) },
    })),
  distance: async (drawn, wanted) => ({
    distance: drawn.map((image, i) => Math.abs(mean(image) - mean(wanted[i] as RgbImage))),
  }),
};

class MemoryStore implements StudyStore {
  readonly parts = new Map<string, StudyPart>();
  readonly kept = new Map<string, RgbImage>();
  /** Told before a part is kept. */
  onAdd = (): void => {};

  has = async (cell: string, first: number): Promise<boolean> => this.parts.has(`${cell} ${first}`);
  async add(part: StudyPart): Promise<void> {
    this.onAdd();
    const key = `${part.cell} ${part.first}`;
    expect(this.parts.has(key), `${key} is measured twice`).toBe(false);
    this.parts.set(key, partFromJson(JSON.parse(JSON.stringify(part)), key));
  }
  async images(of: Wanted, first: number, count: number): Promise<RgbImage[] | undefined> {
    const found = Array.from({ length: count }, (_, i) => this.kept.get(`${of} ${first + i}`));
    return found.every((image) => image !== undefined) ? found : undefined;
  }
  async keepImages(of: Wanted, first: number, drawn: readonly RgbImage[]): Promise<void> {
    for (const [i, image] of drawn.entries()) this.kept.set(`${of} ${first + i}`, image);
  }
  keepSamples = async (): Promise<void> => {};
}

/** What does not depend on the machine's speed. */
const withoutTimes = (store: MemoryStore) =>
  [...store.parts.values()].map(({ cost: { durationMs: _, referenceMs: __, ...cost }, ...part }) => ({
    ...part,
    cost,
  }));
const run = async (from = 0, to = 6, store = new MemoryStore()): Promise<MemoryStore> => {
  await runStudy(pipeline, plan, { store, judge, from, to, batchSize: 2 });
  return store;
};
const rowsOf = (...stores: readonly MemoryStore[]) =>
  studyRows(
    plan,
    stores.flatMap((store) => [...store.parts.values()]),
    judge.population,
  );

const whole = await run();

test("methods are planned at every level and cost, and rivals in every spacing that they have", () => {
  const series = [...new Set(cells.map((cell) => cell.series))];
  expect(series).toContain("FEMO, module");
  expect(series).toContain("FEMO, output");
  expect(series).toContain("Fewer DPM-Solver++ steps, solverOrder 3, lambda");
  expect(new Set(cells.map(({ id }) => id)).size).toBe(cells.length);
  const fora = cells.filter((cell) => cell.series === "FORA, output").map(({ request }) => request);
  expect(fora).toHaveLength(2);
  const [twice, thrice] = fora.map((request) => pipeline.plannedFlops({ classLabels: [0], ...request })?.speedup);
  expect(twice).toBeLessThan(thrice as number);
});

test("the model's fitted solvers are ways to draw, each once, in a quick study too", async () => {
  for (const quick of [false, true]) {
    const planned = await studyCells(fitted, {
      ...{ ...steps, drawing: images.drawing, subjects: images.subjects, quick },
      ...(!quick && { methods: ["fora", "calibrated"] }),
    });
    const requests = planned.filter(({ group }) => group === "Calibrated").map(({ request }) => request);
    const way = (runs: number, target: string) => ({
      cache: { method: "calibrated", fullSteps: runs, target },
      numInferenceSteps: runs,
    });
    expect(requests).toEqual([way(3, "converged"), way(4, "converged"), way(4, "reference")]);
  }
});

test("rows are what a comparison of the same images says", async () => {
  const cell = cells.find(({ series }) => series === "FORA, output");
  const comparison = await compare(pipeline, {
    ...{ classLabels: [0, 1, 2, 0, 1, 2], seed: 3, ...steps, guidanceScale: 2, convergedSteps: 12, batchSize: 2 },
    variants: [{ name: "fora", ...cell?.request }],
  });
  const row = (await rowsOf(whole)).find((one) => one.cell.id === cell?.id);
  const [reference, fora] = comparison.rows;
  expect(row?.reference.psnr?.values).toEqual(fora?.psnr?.values);
  expect(row?.reference.ssim?.values).toEqual(fora?.ssim?.values);
  expect(row?.converged.psnr?.values).toEqual(fora?.psnrConverged?.values);
  expect(row?.flopsSpeedup).toBeCloseTo(fora?.flopsSpeedup as number, 1);
  const [first] = await rowsOf(whole);
  expect(first?.cell.id).toBe("reference");
  expect(first?.converged.psnr?.values).toEqual(reference?.psnrConverged?.values);
  expect(first).toMatchObject({ flopsSpeedup: 1, measuredSpeedup: { median: 1 }, frechet: { level: 0 } });
});

test("two shards are the whole", async () => {
  const [first, second] = [await run(0, 4), await run(4, 6)];
  expect([...withoutTimes(first), ...withoutTimes(second)].toSorted(byPart)).toEqual(
    withoutTimes(whole).toSorted(byPart),
  );
  const [apart, together] = [await rowsOf(first, second), await rowsOf(whole)];
  const key = (rows: typeof apart) => rows.map(({ measuredSpeedup: _, ...row }) => row);
  expect(key(apart)).toEqual(key(together));
  // Two folders may both have a part.
  expect(key(await rowsOf(first, second, second))).toEqual(key(together));
});

test("parts that not all cells have are not compared, unless there are no others", () => {
  const parts = [...whole.parts.values()];
  const without = (...missing: readonly [cell: number, first: number][]) =>
    parts.filter(({ cell, first }) => !missing.some(([i, at]) => first === at && cell === cells[i]?.id));
  expect(comparable(plan, parts)).toEqual(parts);
  expect(new Set(comparable(plan, without([2, 4])).map(({ first }) => first))).toEqual(new Set([0]));
  const none = without([1, 0], [2, 4]);
  expect(comparable(plan, none)).toEqual(none);
});

const byPart = (a: { cell: string; first: number }, b: typeof a) => a.cell.localeCompare(b.cell) || a.first - b.first;

test("what was measured before the process was killed is not measured again", async () => {
  const store = new MemoryStore();
  let left = 5;
  store.onAdd = () => {
    if (left-- === 0) throw new Error("killed");
  };
  await expect(run(0, 6, store)).rejects.toThrow("killed");
  expect(store.parts.size).toBe(5);
  store.onAdd = () => {};
  await run(0, 6, store); // the store refuses a second part
  expect(withoutTimes(store).toSorted(byPart)).toEqual(withoutTimes(whole).toSorted(byPart));
});

test("parts begin where they begin in the whole", () => {
  fc.assert(
    fc.property(fc.nat(50), fc.nat(50), fc.integer({ min: 1, max: 9 }), (from, more, partSize) => {
      const ranges = partsOf({ partSize }, from, from + more);
      const seen = ranges.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
      expect(seen).toEqual(Array.from({ length: more }, (_, i) => from + i));
      for (const { first } of ranges.slice(1)) expect(first % partSize).toBe(0);
    }),
  );
});

test("features come out of a file as they went in", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.float(), fc.float(), fc.float()), { minLength: 1, maxLength: 5 }), (rows) => {
      const packed = packRows(rows.map((row) => Float32Array.from(row)));
      expect(unpackRows(packed, rows.length).map((row) => [...row])).toEqual(
        rows.map((row) => [...Float32Array.from(row)]),
      );
    }),
  );
});

test("a part that is none is refused by name", () => {
  const [part] = whole.parts.values();
  for (const [json, words] of [
    [{ ...part, count: 3 }, "not a value for each image"],
    [{ ...part, cell: undefined }, "cell: missing"],
    [null, "expected object"],
  ] as const) {
    expect(() => partFromJson(json, "a/0.json")).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(`a/0.json: .*${words}`) }),
    );
  }
});

describe("the front", () => {
  const rows = fc.array(fc.record({ speed: fc.integer({ min: 1, max: 6 }), good: fc.integer({ min: 0, max: 6 }) }));
  type Row = { speed: number; good: number };
  const beats = (a: Row, b: Row) => a.speed >= b.speed && a.good >= b.good && (a.speed > b.speed || a.good > b.good);

  test("has what no other row beats", () => {
    fc.assert(
      fc.property(rows, (all) => {
        const front = paretoFront(
          all,
          ({ speed }) => speed,
          ({ good }) => good,
        );
        for (const row of front) expect(all.some((other) => beats(other, row))).toBe(false);
        for (const row of all) {
          const isThere = front.some(({ speed, good }) => speed === row.speed && good === row.good);
          expect(isThere).toBe(!all.some((other) => beats(other, row)));
        }
      }),
    );
  });
});

describe("a difference of two ways to draw", () => {
  const rowWith = (values: readonly number[]): StudyRow => {
    const [cell] = plan.cells;
    const measured = {
      fullSteps: 1,
      flopsSpeedup: 1,
      measuredSpeedup: { median: 1, least: 1, most: 1 },
      stateBytes: 0,
    };
    const psnr = { reference: { psnr: qualityOf(values) }, converged: {}, scores: {}, frechet: {} };
    return { cell: cell as StudyCell, images: values.length, ...psnr, ...measured };
  };
  const between = (own: readonly number[], theirs: readonly number[]) => {
    const [a, b] = [rowWith(own), rowWith(theirs)];
    const [mean] = measuresOf([a, b]);
    return differenceOf(mean as Measure, a, b);
  };

  test("is of the same images: what is hard for both does not widen it", () => {
    const hard = [50, 20, 35, 48];
    const found = between(
      hard.map((value, i) => value - 1 - i / 10),
      hard,
    );
    const deviation = Math.sqrt(0.05 / 3); // of 1, 1.1, 1.2 and 1.3
    expect(found?.mean).toBeCloseTo(-1.15, 10);
    expect(found?.margin).toBeCloseTo((1.96 * deviation) / 2, 10);
    expect(qualityOf(hard).standardError).toBeGreaterThan(5);
  });

  test("is none where one has other images, or draws one as it was", () => {
    expect(between([30, 31], [30, 31, 32])).toBeUndefined();
    expect(between([30, Number.POSITIVE_INFINITY], [30, 31])).toBeUndefined();
    expect(between([Number.POSITIVE_INFINITY, 30], [Number.POSITIVE_INFINITY, 31])).toBeUndefined();
  });
});

test("the table and the report say each row", async () => {
  const rows = await rowsOf(whole);
  const [header, ...lines] = studyCsv(rows).trimEnd().split("\n");
  expect(header).toMatch(/^id,method,series,level,images,full_steps,flops_speedup,.*reference_psnr_tenth_percentile/);
  expect(lines).toHaveLength(rows.length);
  const page = studyHtml({
    plan,
    rows,
    samples: () => [],
    chartJs: "/* Chart.js */",
    facts: { Command: "femo <study>" },
  });
  expect(page).toContain("femo &#60;study&#62;");
  for (const { cell } of rows) expect(page).toContain(cell.series);
});
