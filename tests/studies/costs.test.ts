import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { everyOperation } from "../../src/graph/flops.js";
import { countFlops } from "../../src/graph/index.js";
import { taylorSeer } from "../../src/methods/index.js";
import { dit, ditXL2 } from "../../src/models/dit.js";
import { ditCosts } from "../../src/studies/costs/dit.js";
import { fluxCosts } from "../../src/studies/costs/flux.js";
import { inModule, type Step, stepsOn, weightOf, within } from "../../src/studies/costs/steps.js";
import { type CostRow, costTablesCsv, costTablesText, paperCosts } from "../../src/studies/index.js";
import { traceCut } from "../../src/tracing/index.js";
import { femoError } from "../weights/helpers.js";

const tables = paperCosts();
const rowsOf = (name: string): readonly CostRow[] => tables.find((table) => table.name === name)?.rows ?? [];
const nameOf = (table: string, { method, interval }: CostRow): string =>
  [table, method, ...(interval === undefined ? [] : [interval])].join(" ");

describe("the paper's costs, counted from the graphs", () => {
  const verdicts = tables.flatMap(({ name, rows }) =>
    rows.flatMap((row) =>
      (["flops", "speed"] as const).map((key) => ({ cell: `${nameOf(name, row)} ${key}`, ...row[key] })),
    ),
  );
  const cellsWith = (verdict: string) => verdicts.filter((v) => v.verdict === verdict).map(({ cell }) => cell);

  test("have the rows of the six tables", () =>
    expect(tables.map(({ name, rows }) => [name, rows.length])).toEqual([
      ["1", 32],
      ["4", 28],
      ["A1", 13],
      ["A2", 7],
      ["A3", 8],
      ["A4", 8],
    ]));

  test("equal the printed digits but for slips, and for six values in their last digits", () => {
    for (const { verdict, counted, printed } of verdicts) {
      if (verdict === "equal") expect(counted?.toFixed(2)).toBe(printed.toFixed(2));
    }
    expect(cellsWith("slip")).toEqual([
      "1 40% steps speed",
      "1 34% steps speed",
      "1 DuCa 5 flops",
      "1 DuCa 5 speed",
      "4 FORA 8 flops",
      "4 FORA 8 speed",
    ]);
    expect(cellsWith("different")).toEqual([
      "1 Delta-DiT 2 flops",
      "1 TeaCache l=0.8 flops",
      "1 TeaCache l=1.2 flops",
      "1 ToCa 12 flops",
      "4 Delta-DiT 2 speed",
      "4 FORA 3 flops",
    ]);
    expect(cellsWith("not derivable")).toEqual(
      ["1 DBCache", "1 Chipmunk", "4 ToCa 6", "4 DuCa 6"].flatMap((row) => [`${row} flops`, `${row} speed`]),
    );
    expect(cellsWith("equal")).toHaveLength(2 * 96 - 6 - 6 - 8);
  });

  test("what is not equal says what is known, and what differs without being a slip differs by little", () => {
    for (const row of tables.flatMap(({ rows }) => rows)) {
      for (const { counted, printed, verdict } of [row.flops, row.speed]) {
        if (verdict !== "equal") expect(row.remark).toBeDefined();
        if (verdict === "different") expect(Math.abs((counted as number) / printed - 1)).toBeLessThan(0.005);
      }
    }
  });

  test("follow from the sets of full steps", () => {
    const sets = readFileSync(new URL("../goldens/schedules.csv", import.meta.url), "utf8")
      .split("\n")
      .map((line) => line.split(","))
      .filter(([model, , , , , printed]) => (model === "DiT" || model === "FLUX") && printed);
    expect(sets).toHaveLength(15);
    for (const [model, interval, , fullSteps, , printed] of sets) {
      const rows = rowsOf(model === "DiT" ? "A2" : "A4").filter((row) => row.interval === Number(interval));
      expect(rows).toHaveLength(1);
      expect(rows[0]).toMatchObject({ fullSteps: Number(fullSteps), flops: { printed: Number(printed) } });
    }
  });

  test("only the tables asked for, and no others", async () => {
    expect(paperCosts(["A2", "4"])).toEqual(tables.filter(({ name }) => ["4", "A2"].includes(name)));
    expect(await femoError("E_OPTION", () => paperCosts(["4", "5"]))).toContain('"5"');
  });
});

describe("the counts equal sums written out by hand", () => {
  const uncached = { cache: "none", numSteps: 50 } as const;

  test("DiT-XL/2, a step of two samples", () => {
    const [D, T, H, L, B] = [1152, 256, 16, 28, 2];
    const attention = 2 * (4 * T * D * D + 2 * T * T * D) + T * D + 5 * H * T * T;
    const mlp = 2 * 8 * T * D * D + 6 * 4 * T * D;
    const block = B * (attention + mlp + 2 * T * D + 6 * D * D);
    const { costOf } = ditCosts();
    expect(costOf(uncached).flops).toBeCloseTo(50 * L * block, -3);
    const forecast = costOf({ cache: taylorSeer({ interval: 9 }), numSteps: 50 });
    expect(forecast).toEqual({ fullSteps: 7, flops: expect.closeTo(L * (7 * block + 43 * B * 6 * D * D), -3) });
  });

  test("FLUX.1-dev: 74.39 T a step, 22.71 G a forecast step", () => {
    const [D, I, T] = [3072, 4096, 512];
    const tokens = I + T;
    const embedders = 2 * (2 * (256 * D + D * D) + (768 * D + D * D));
    const modulations = 2 * (19 * 12 + 38 * 3 + 2) * D * D;
    const outside = embedders + modulations + 2 * (2 * I * 64 * D + T * 4096 * D) + 4 * I * D;
    const inside = 57 * 2 * (12 * tokens * D * D + 2 * tokens * tokens * D) + 76 * 4 * tokens * D + 57 * 4 * tokens * D;
    expect((outside + inside) / 1e12).toBeCloseTo(74.39, 2);
    expect(outside / 1e9).toBeCloseTo(22.71, 2);
    const { costOf } = fluxCosts();
    expect(costOf(uncached).flops).toBeCloseTo(50 * 74.39e12, -3);
    expect(costOf({ cache: taylorSeer({ interval: 10, firstEnhance: 3 }), numSteps: 50 })).toEqual({
      fullSteps: 7,
      flops: expect.closeTo(7 * 74.39e12 + 43 * 22.71e9, -3),
    });
  });

  test("a step is the graph of its cut, whose nodes know their features", () => {
    const [model, block] = [dit({ ...ditXL2, numLayers: 2 }), "transformer_blocks.1"];
    const stepsOf = stepsOn(model, { batch: 3 });
    const [full, forecast] = stepsOf({ cache: taylorSeer({ firstEnhance: 1 }), numSteps: 2 }) as [Step, Step];
    expect([full.kind, forecast.kind]).toEqual(["full", "forecast"]);
    const { graph } = traceCut(model, { hoisted: "inline" });
    const all = { convention: everyOperation, counts: () => true };
    expect(full.flops(all)).toBe(countFlops(graph, { batch: 3 }));
    expect(forecast.flops({ ...all, counts: inModule })).toBe(0);
    const products = graph.reachable().nodes.filter((node) => weightOf(node) && within(node, "module", `${block}.`));
    expect(products.map((node) => weightOf(node).replace(`${block}.`, "")).sort()).toEqual([
      "attn1.to_k.weight",
      "attn1.to_out.0.weight",
      "attn1.to_q.weight",
      "attn1.to_v.weight",
      "ff.net.0.proj.weight",
      "ff.net.2.weight",
    ]);
  });
});

describe("tables as text", () => {
  test("show counted beside printed, the difference and its reason", () => {
    const text = costTablesText(tables);
    expect(text).toMatch(/DuCa +5 +12 +978\.76 +1078\.34 +-99\.58 slip/);
    expect(text).toContain("7 of 7 rows to the printed digit, 0 printed wrong");
    expect(text).toContain("the cost of N = 9");
    expect(text).toMatch(/DBCache +- +2384\.29/);
  });

  test("as CSV have a line for each row and as many cells in each", () => {
    const lines = costTablesCsv(tables).split("\n");
    expect(lines).toHaveLength(1 + 96);
    const cells = (line: string) => line.replaceAll(/"[^"]*"/g, "").split(",");
    for (const line of lines) expect(cells(line)).toHaveLength(12);
    expect(lines).toContain(
      '4,FORA,8,,8,3.8164,3.34,slip,6.2206,7.1,slip,"the cost of N = 9, with 7 full steps; N = 8 has 8"',
    );
  });
});
