import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Chart.js as one classic script; it lies beside the package's entry. */
export const chartJs = (): string =>
  readFileSync(fileURLToPath(new URL("chart.umd.min.js", import.meta.resolve("chart.js"))), "utf8");
