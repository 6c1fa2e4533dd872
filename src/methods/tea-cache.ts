import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { fora } from "./forecasts/index.js";
import { common, defineMethod, listOf, type ModelFacts, methodValue, type Policy } from "./method.js";
import { keptAt } from "./scheduled.js";

/** Published polynomials, highest power first. */
const published = {
  flux: [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861],
} as const;
const publishedNames = ["flux"] as const satisfies readonly (keyof typeof published)[];

/** What enters the first attention, normalised and modulated; of a U-Net where the timestep first meets the image. */
const MARK = "modulated";

/** The input of the first block tells how far the output will have moved (TeaCache, Liu et al., arXiv 2411.19108). */
export const teaCacheMethod = defineMethod({
  name: "teaCache",
  title: "TeaCache",
  schema: z.strictObject({
    method: z.literal("teaCache"),
    ...common,
    /** A step is full once the changes since the last full one come to this. */
    threshold: z.number().check(z.nonnegative()),
    /** Of the polynomial that makes the output's change out of the input's, highest power first; or whose they are. */
    coefficients: z.union([listOf(z.number()), z.enum(publishedNames)]),
    /** The level at which features are kept and used again, one of the model's or "x0". */
    granularity: z.string(),
  }),
  defaults: { threshold: 0.2, coefficients: [1, 0], granularity: "stack" },
  knob: { field: "threshold", from: 0, to: 2 },
  build({ threshold, coefficients, granularity }, model) {
    const powers = typeof coefficients === "string" ? published[coefficients] : coefficients;
    return {
      cuts: keptAt(granularity),
      forecaster: fora(),
      measure: false,
      firstDifference: 0,
      policy: accumulating(powers, threshold, model),
    };
  },
});

/** TeaCache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const teaCache = methodValue(teaCacheMethod);

function accumulating(coefficients: readonly number[], threshold: number, model: ModelFacts): Policy {
  if (!model.marks.includes(MARK)) {
    const found = model.marks.join(", ") || "none";
    throw new FemoError("E_OPTION", `cache: teaCache: expected a model that gives out "${MARK}", found ${found}`);
  }
  const policy: Policy<number> = {
    looks: [
      {
        cut: { aside: true, give: [MARK] },
        of: { mark: MARK },
        against: "last step",
        measure: "l1",
      },
    ],
    start: () => 0,
    decide(sum, { step, numSteps, due }, [change]) {
      const forced = due || step === 0 || step === numSteps - 1 || change === undefined;
      const next = forced ? threshold : sum + outputChange(coefficients, change);
      return next < threshold ? { memory: next, kind: "forecast" } : { memory: 0, kind: "full" };
    },
  };
  return policy as Policy;
}

/** The polynomial's value; where a fit goes below zero, nothing is expected to change. */
const outputChange = (coefficients: readonly number[], inputChange: number): number =>
  Math.max(
    0,
    coefficients.reduce((sum, c) => sum * inputChange + c, 0),
  );
