import type { Caching } from "./contract.js";

/** Methods that choose tokens in blocks in a row or reuse halves of them, or want more of attention and MLPs than a U-Net says. */
export const refusedByUNets: readonly Caching[] = [...(["toca", "duca", "deltaDit", "chipmunk"] as const)];
