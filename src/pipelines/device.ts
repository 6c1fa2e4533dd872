/** What a model can compute on. "auto" takes the best there is. */
export const devices = ["auto", "cpu"] as const;
export type Device = (typeof devices)[number];
