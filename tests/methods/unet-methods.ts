import type { Caching } from "./contract.js";

/** Methods that divide a model between blocks in a row, or want more of attention and MLPs than a U-Net says. */
export const refusedByUNets: readonly Caching[] = [
  ...(["toca", "duca", "teaCache", "firstBlock", "dbCache", "deltaDit", "chipmunk"] as const),
];
