export {
  type CompareOptions,
  type CompareProgress,
  type Comparison,
  type ComparisonRow,
  type ComparisonStep,
  compare,
  type Quality,
} from "./compare.js";
export { type ComparisonReportOptions, comparisonHtml } from "./report-html.js";
export { comparisonTable } from "./table.js";
export { type CompareVariant, type DefaultVariantOptions, defaultVariants } from "./variants.js";
