import { expect, test } from "vitest";
import { blocksOf } from "../../../src/methods/blocks.js";

const flux = blocksOf({ chains: { double: 19, single: 38 } });

test("the blocks of all chains are one list", () => {
  expect(flux.count).toBe(57);
  expect(flux.firstChain).toBe("double");
  expect(flux.before(0)).toEqual({ chain: "double", block: 0 });
  expect(flux.before(18)).toEqual({ chain: "double", block: 18 });
  expect(flux.before(19)).toEqual({ chain: "single", block: 0 });
  expect(flux.before(57)).toEqual({ chain: "single", block: 38 });
});

test("a run of blocks is a span in one chain, and several across chains", () => {
  expect(flux.across(2, 19)).toEqual({ chain: "double", blocks: [2, 19] });
  expect(flux.across(19, 57)).toEqual({ chain: "single", blocks: [0, 38] });
  expect(flux.across(8, 20)).toEqual({
    any: [
      { chain: "double", blocks: [8, 19] },
      { chain: "single", blocks: [0, 1] },
    ],
  });
});

test("chains without blocks do not count", () => {
  const blocks = blocksOf({ chains: { none: 0, double: 3, single: 0 } });
  expect(blocks.firstChain).toBe("double");
  expect(blocks.before(3)).toEqual({ chain: "double", block: 3 });
  expect(blocks.across(0, 3)).toEqual({ chain: "double", blocks: [0, 3] });
});
