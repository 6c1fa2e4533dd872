import { vi } from "vitest";
import { z } from "zod";
import { type Forecaster, fora } from "../../src/methods/forecasts/index.js";
import type { CacheMethod } from "../../src/methods/index.js";
import { defineMethod, type Policy } from "../../src/methods/method.js";

/** A method that looks: the first block decides whether the others' change is used again. */
const firstBlockMethod = defineMethod({
  name: "firstBlock",
  title: "First-block cache",
  schema: z.strictObject({ method: z.literal("firstBlock"), threshold: z.number().nonnegative() }),
  defaults: { threshold: 0.1 },
  knob: { field: "threshold", from: 0, to: 2 },
  build({ threshold }) {
    const region = { level: "stack" };
    const policy: Policy = {
      looks: [
        {
          cut: { to: { chain: "transformer_blocks", block: 1 } },
          of: { stream: "x" },
          against: "last full",
          measure: "l1",
        },
      ],
      start: () => undefined,
      decide: (memory, _, [moved]) => ({
        memory,
        kind: moved === undefined || moved > threshold ? "full" : "forecast",
      }),
    };
    return {
      cuts: { full: { capture: region }, forecast: { forecast: region } },
      forecaster: fora() as Forecaster,
      measure: true,
      firstDifference: 0,
      policy,
    };
  },
});

/** Its name, which the types of the table do not have. */
export const firstBlock = "firstBlock" as CacheMethod;

/** The library as it is with this method in its table, until `remove`: its modules are loaded anew. */
export async function withFirstBlock() {
  vi.resetModules();
  vi.doMock("../../src/methods/table.js", async (original) => {
    const { methodTable } = await original<typeof import("../../src/methods/table.js")>();
    return { methodTable: [...methodTable, firstBlockMethod] };
  });
  const { DiffusionPipeline } = await import("../../src/index.js");
  return {
    DiffusionPipeline,
    ...(await import("../../src/studies/index.js")),
    ...(await import("../../src/studies/warm-up.js")),
    remove() {
      vi.doUnmock("../../src/methods/table.js");
      vi.resetModules();
    },
  };
}
