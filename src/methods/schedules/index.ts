export { type CrowdedSteps, crowdedSteps } from "./deep-cache-steps.js";
export { everyInterval, fullSteps, type Schedule } from "./schedule.js";
export { type StepsMaskName, stepsMask, stepsMaskNames } from "./steps-mask.js";
