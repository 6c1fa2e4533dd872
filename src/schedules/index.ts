export { everyInterval, everyStep, fullSteps, type Schedule } from "./schedule.js";
