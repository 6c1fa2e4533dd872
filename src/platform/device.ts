/** What a model can compute on. "auto" takes the best there is. */
export const devices = ["auto", "cpu"] as const;
/** One of `devices`. */
export type Device = (typeof devices)[number];
