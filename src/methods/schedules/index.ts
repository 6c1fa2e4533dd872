export { everyInterval, fullSteps, type Schedule } from "./schedule.js";
