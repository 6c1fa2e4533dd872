export { type FigurePoint, type LineFigure, trajectoryFigures } from "./figures.js";
export { classifierJudge, type Judge, type Judged } from "./judge.js";
export { type JudgeNetworks, networkJudge } from "./network-judge.js";
export { type PartCost, type PartValues, partFromJson, type StudyPart } from "./part.js";
export {
  type CellOptions,
  type CellRequest,
  type StudyCell,
  type StudyDrawing,
  type StudyPlan,
  type StudySubject,
  studyCells,
  withoutRefused,
} from "./plan.js";
export { type StudyReport, studyHtml } from "./report-html.js";
export { type RunStudyOptions, runStudy, type StudyStore, studyCost, type Wanted } from "./run.js";
export { comparable, type Populations, paretoFront, type StudyRow, studyCsv, studyRows } from "./summary.js";
