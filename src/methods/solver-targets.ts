/** What a solver is fitted to come near to: images of the converged sampler, or of the model's own steps. The first is preferred. */
export const solverTargets = ["converged", "reference"] as const;
/** One of `solverTargets`. */
export type SolverTarget = (typeof solverTargets)[number];
