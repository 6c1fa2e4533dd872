/**
 * What the FEMO paper sets on SDXL's U-Net (its table 2, N = 2 and 7): order 1. It says neither beta, for which that of its DiT at order 1
 * stands here, nor what is kept of the network. Here that is DeepCache's hidden state two layers from the end, as DeepCache's own
 * code keeps it: 10 MB for each row of an image of 1024 pixels, where the outputs of all attention and MLPs would be 629.
 */
const table2 = { interval: 2, granularity: "deep.1" };
const firstOrder = { ...table2, order: 1 };

export const unetPresets = {
  fora: table2,
  taylorSeer: firstOrder,
  newton: firstOrder,
  femo: { ...firstOrder, beta: -0.2 },
  adaptedFemo: { ...firstOrder, beta: -0.2 },
  hindsight: { interval: 2 },
  hiCache: firstOrder,
  foca: table2,
  magCache: { granularity: "deep.1" },
  deepCache: { interval: 2, cacheBranchId: 1 },
};
