import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { everyInterval, fullSteps, type Schedule } from "../../../src/methods/schedules/index.js";
import { femoError } from "../../weights/helpers.js";

const rows = readFileSync(new URL("../../goldens/schedules.csv", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => /^(DiT|FLUX),/.test(line))
  .map((line) => {
    const [plain, order, index] = line.split('"').filter((part) => part !== ",") as [string, string, string];
    const [model, interval, firstEnhance, count] = plain.split(",") as [string, string, string, string];
    const numbers = (text: string) => text.split(" ").map(Number);
    return {
      model,
      interval: Number(interval),
      firstEnhance: Number(firstEnhance),
      count: Number(count),
      order: numbers(order),
      index: numbers(index),
    };
  });

const stepsOf = (schedule: Schedule): number[] =>
  Array.from({ length: 50 }, (_, i) => i).filter((i) => schedule.isFull(i));

describe("everyInterval", () => {
  test("the table of facts is whole", () => expect(rows.length).toBeGreaterThanOrEqual(20));

  test.each(rows)("$model, interval $interval: $count full steps of 50", (row) => {
    const steps = stepsOf(everyInterval(row));
    expect(steps).toEqual(row.order);
    expect(steps).toHaveLength(row.count);
    expect(steps.map((i) => (row.model === "DiT" ? 49 - i : i))).toEqual(row.index);
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("rejects %d", async (bad) => {
    expect(await femoError("E_OPTION", () => everyInterval({ interval: bad, firstEnhance: 2 }))).toMatch(/^interval: /);
    expect(await femoError("E_OPTION", () => everyInterval({ interval: 3, firstEnhance: bad }))).toMatch(
      /^firstEnhance: /,
    );
  });
});

test("interval 1 is every step", () => {
  const { isFull } = everyInterval({ interval: 1, firstEnhance: 2 });
  expect(Array.from({ length: 9 }, (_, step) => isFull(step))).not.toContain(false);
});

describe("fullSteps", () => {
  test("is the set it is given, in any order", () => expect(stepsOf(fullSteps([7, 0, 3, 3]))).toEqual([0, 3, 7]));

  test.each([[[]], [[1, 2]], [[0, -1]], [[0, 1.5]], [[0, Number.NaN]]])("rejects %j", async (steps) => {
    expect(await femoError("E_OPTION", () => fullSteps(steps))).toMatch(/^fullSteps: /);
  });
});
