/**
 * Caching methods side by side, with a report; what TeaCache and MagCache need to know of a model; and the costs of the
 * FEMO paper's tables, counted again.
 * @module femo/studies
 */
export {
  type CalibratedMethod,
  type CalibrateOptions,
  type Calibrations,
  calibrate,
  calibratedMethods,
} from "./calibrate.js";
export {
  type CompareOptions,
  type CompareProgress,
  type CompareResult,
  type Comparison,
  compare,
} from "./compare.js";
export {
  type ComparedValue,
  type CostRow,
  type CostTable,
  costTableNames,
  paperCosts,
  type Verdict,
} from "./costs/costs.js";
export { type SpeedReading, type SpeedRow, speedReadingsText, table2Readings } from "./costs/sdxl.js";
export { costTablesCsv, costTablesText } from "./costs/table.js";
export {
  classSubjects,
  type PaperMetric,
  type PaperModel,
  type PaperProtocol,
  paperProtocols,
} from "./paper-study/protocols.js";
export { type ComparisonPlan, planComparison } from "./plan.js";
export { type Quality, qualityOf } from "./quality.js";
export * from "./quality-study/index.js";
export { type ComparisonReportOptions, comparisonHtml } from "./report-html.js";
export type { ComparisonRow, ComparisonStep } from "./rows.js";
export { type CostOptions, type SettingsAtCost, settingsAtCost } from "./settings-at-cost.js";
export {
  type FitSolverOptions,
  fitSolver,
  fittedSolverOf,
  type SolverFit,
  type SolverFitState,
  type SolverJudgement,
} from "./solver-fit/fit-solver.js";
export type { StartingSolver } from "./solver-fit/start.js";
export type { TargetStore } from "./solver-fit/targets.js";
export { type StepTiming, uncachedStepMs } from "./step-time.js";
export type { StudyOptions } from "./study-options.js";
export { comparisonTable } from "./table.js";
export {
  type AblationRow,
  ablation,
  errorOverHorizon,
  type ForecastPaths,
  type ForecastPathsOptions,
  forecastPaths,
  type HorizonErrors,
  type HorizonOptions,
  type PathStep,
  type Spread,
} from "./trajectories/figures.js";
export { type ForecastMiss, forecastingMethods } from "./trajectories/open-loop.js";
export {
  type Plane,
  type PlanePoint,
  type PrincipalPlane,
  planeOfGram,
  principalPlane,
  project,
} from "./trajectories/plane.js";
export {
  recordTrajectories,
  type Trajectories,
  type Trajectory,
  type TrajectoryOptions,
  type TrajectoryRow,
} from "./trajectories/record.js";
export {
  type CompareVariant,
  type DefaultVariantOptions,
  defaultVariants,
  recommendedMethods,
  type SpeedupVariantOptions,
  variantsAtSpeedup,
} from "./variants.js";
