import {
  type Process,
  type SamplerOption,
  samplerTitle,
  type TimestepSpacing,
  timestepSpacings,
} from "../samplers/index.js";

/** Fewer steps of a sampler, the honest alternative to caching. */
export interface Rival {
  readonly sampler: SamplerOption;
  readonly timestepSpacing?: TimestepSpacing;
}

/** At both of the orders that are used; DEIS by itself would stop short of an image without noise. */
const multistep: readonly SamplerOption[] = ([2, 3] as const).flatMap((solverOrder): SamplerOption[] => [
  { sampler: "dpm-solver++", solverOrder },
  { sampler: "unipc", solverOrder },
  { sampler: "deis", solverOrder, finalSigmasType: "zero" },
]);

/** Those without fresh noise. */
const samplers: { readonly [P in Process]: readonly SamplerOption[] } = {
  diffusion: ["ddim", ...multistep, "pndm", "euler"],
  flow: ["euler", { sampler: "dpm-solver++", solverOrder: 2 }, { sampler: "dpm-solver++", solverOrder: 3 }, "deis"],
};

/** The two that are compared with when there is little time, where they are strong. */
const strongest: { readonly [P in Process]: readonly Rival[] } = {
  diffusion: [
    { sampler: "ddim", timestepSpacing: "leading" },
    { sampler: "dpm-solver++", timestepSpacing: "lambda" },
  ],
  flow: [{ sampler: "euler" }, { sampler: "dpm-solver++" }],
};

/** All rivals, each in every spacing that there is: which of them a sampler does not have, it says itself. */
export const rivalsOf = (process: Process, quick: boolean): readonly Rival[] =>
  quick
    ? strongest[process]
    : samplers[process].flatMap((sampler) => timestepSpacings.map((timestepSpacing) => ({ sampler, timestepSpacing })));

/** What a rival is, and what of it is not as usual. */
export function rivalWords({ sampler, timestepSpacing }: Rival): [title: string, ...settings: string[]] {
  const [name, settings] = typeof sampler === "string" ? [sampler, {}] : [sampler.sampler, sampler];
  const words = Object.entries(settings).flatMap(([key, value]) => (key === "sampler" ? [] : [`${key} ${value}`]));
  return [samplerTitle(name), ...words, ...(timestepSpacing ? [timestepSpacing] : [])];
}
