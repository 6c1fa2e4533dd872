import { FemoError } from "../../errors.js";
import { ditCosts } from "./dit.js";
import { fluxCosts } from "./flux.js";
import type { PaperRow } from "./paper-rows.js";
import { type PaperTable, paperTables } from "./paper-tables.js";
import type { ModelCosts } from "./run.js";

/** How a value compares with the printed one. */
export type Verdict =
  /** To the printed digit. */
  | "equal"
  /** It does not, and the printed one is known to be wrong. */
  | "slip"
  | "different"
  | "not derivable";

/** A value of our own count beside the paper's. */
export interface ComparedValue {
  readonly printed: number;
  /** Undefined where it cannot be derived. */
  readonly counted?: number;
  readonly verdict: Verdict;
}

/** A row of a table of the paper. Plain data. */
export interface CostRow {
  readonly method: string;
  /** N and O, as printed. */
  readonly interval?: number;
  readonly order?: number;
  /** Counted; undefined where the cost cannot be derived. */
  readonly fullSteps?: number;
  /** 10^12 floating-point operations an image. */
  readonly flops: ComparedValue;
  /** FLOPs of the table's baseline over those of this row. */
  readonly speed: ComparedValue;
  /** Why the printed value is a slip, why nothing can be derived, or what the count takes for granted. */
  readonly remark?: string;
}

/** A table of the paper. Plain data. */
export interface CostTable {
  /** "1" and "4", "A1" .. "A4" for those of the appendix. */
  readonly name: string;
  readonly title: string;
  readonly model: string;
  /** What counts as how much, in words. */
  readonly counting: string;
  readonly rows: readonly CostRow[];
}

const models = { "DiT-XL/2": ditCosts, "FLUX.1-dev": fluxCosts };
/** The tables whose costs are counted. */
export const costTableNames: readonly string[] = paperTables.map(({ name }) => name);

/**
 * The costs of the FEMO paper's tables, counted anew: each row is a run of its method, and the graphs of its steps are
 * counted, without weights, in the convention of its authors. Speed-ups are over the uncached run, rounded as printed.
 * @param names of the tables. Default: all
 * @throws FemoError E_OPTION if there is no such table
 */
export function paperCosts(names: readonly string[] = costTableNames): CostTable[] {
  const unknown = names.find((name) => !costTableNames.includes(name));
  if (unknown !== undefined) {
    throw new FemoError("E_OPTION", `table: expected one of ${costTableNames.join(", ")}, found "${unknown}"`);
  }
  const costs: Partial<Record<PaperTable["model"], ModelCosts>> = {};
  return paperTables
    .filter(({ name }) => names.includes(name))
    .map(({ name, title, model, rows }) => {
      costs[model] ??= models[model]();
      const { counting, costOf } = costs[model];
      const baseline = printedDigits(costOf({ cache: "none", numSteps: 50 }).flops / 1e12);
      return { name, title, model, counting, rows: rows.map((row) => compare(row, costOf, baseline)) };
    });
}

function compare(row: PaperRow, costOf: ModelCosts["costOf"], baseline: number): CostRow {
  const { method, interval, order, run, slip } = row;
  const settings = { method, ...(interval !== undefined && { interval }), ...(order !== undefined && { order }) };
  if ("reason" in run) {
    const unknown = (printed: number): ComparedValue => ({ printed, verdict: "not derivable" });
    return { ...settings, flops: unknown(row.flops), speed: unknown(row.speed), remark: run.reason };
  }
  const cost = costOf(run);
  const flops = cost.flops / 1e12;
  const value = (name: "flops" | "speed", counted: number): ComparedValue => {
    const equal = printedDigits(counted) === row[name];
    return { printed: row[name], counted, verdict: equal ? "equal" : slip?.of.includes(name) ? "slip" : "different" };
  };
  const remark = slip?.why ?? row.note;
  return {
    ...settings,
    fullSteps: cost.fullSteps,
    flops: value("flops", flops),
    speed: value("speed", baseline / flops),
    ...(remark !== undefined && { remark }),
  };
}

/** All tables print two decimals. */
const printedDigits = (value: number): number => Number(value.toFixed(2));
