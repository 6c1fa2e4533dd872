import type { DiffusionPipeline } from "../pipelines/index.js";

/** The first ten. */
export const defaultClasses = ({ classes }: DiffusionPipeline): number[] => [...classes.keys()].slice(0, 10);
