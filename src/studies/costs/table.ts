import { csvText } from "../csv.js";
import { alignedText } from "../table.js";
import type { ComparedValue, CostRow, CostTable, Verdict } from "./costs.js";

/** The tables as aligned plain text: counted beside printed, with what is known of each difference below. */
export function costTablesText(tables: readonly CostTable[]): string {
  return tables.map(oneTable).join("\n\n");
}

function oneTable({ title, counting, rows }: CostTable): string {
  const remarks = [...new Set(rows.flatMap(({ remark }) => remark ?? []))];
  const numberOf = (row: CostRow): string => (row.remark ? `[${remarks.indexOf(row.remark) + 1}]` : "");
  const heading = ["", "N", "O", "Full steps", "TFLOPs", "printed", "", "Speed-up", "printed", "", ""];
  const lines = rows.map((row) => [
    row.method,
    text(row.interval),
    text(row.order),
    text(row.fullSteps),
    ...cells(row.flops),
    ...cells(row.speed),
    numberOf(row),
  ]);
  const notes = remarks.map((remark, i) => `[${i + 1}] ${remark}`);
  return [title, alignedText([heading, ...lines]), summary(rows), `Counted: ${counting}`, ...notes].join("\n");
}

/** Counted, printed, and the difference if the digits do not agree. */
function cells({ counted, printed, verdict }: ComparedValue): string[] {
  if (counted === undefined) return ["-", printed.toFixed(2), ""];
  const difference = Number(counted.toFixed(2)) - printed;
  const signed = `${difference < 0 ? "" : "+"}${difference.toFixed(2)}`;
  const mark = { equal: "", slip: `${signed} slip`, different: signed, "not derivable": "" }[verdict];
  return [counted.toFixed(2), printed.toFixed(2), mark];
}

/** A row is as good as the worse of its two values. */
function summary(rows: readonly CostRow[]): string {
  const count = (verdict: Verdict): number => rows.filter((row) => verdictOf(row) === verdict).length;
  const [equal, slip, different, not] = verdicts.map(count);
  return `${equal} of ${rows.length} rows to the printed digit, ${slip} printed wrong, ${different} different, ${not} not derivable`;
}

const verdicts: readonly Verdict[] = ["equal", "slip", "different", "not derivable"];
const verdictOf = ({ flops, speed }: CostRow): Verdict =>
  (["not derivable", "slip", "different"] as const).find((v) => flops.verdict === v || speed.verdict === v) ?? "equal";

/** The rows of all tables as comma-separated values, one heading for all. */
export function costTablesCsv(tables: readonly CostTable[]): string {
  const heading = [
    ...["table", "method", "interval", "order", "full_steps"],
    ...["tflops", "tflops_printed", "tflops_verdict", "speedup", "speedup_printed", "speedup_verdict", "remark"],
  ];
  const values = ({ counted, printed, verdict }: ComparedValue): string[] => [
    counted?.toFixed(4) ?? "",
    String(printed),
    verdict,
  ];
  const lines = tables.flatMap(({ name, rows }) =>
    rows.map((row) => [
      ...[name, row.method, text(row.interval), text(row.order), text(row.fullSteps)],
      ...[...values(row.flops), ...values(row.speed), row.remark ?? ""],
    ]),
  );
  return csvText([heading, ...lines]);
}

const text = (value: number | undefined): string => value?.toString() ?? "";
