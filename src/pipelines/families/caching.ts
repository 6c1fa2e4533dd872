import {
  type CacheFacts,
  type CachePresets,
  defaultPresets,
  presetsFromJson,
  qualitiesFromJson,
  schedulesFromJson,
  solversFromJson,
} from "../../methods/index.js";
import { MEASURED_FILES, type ModelFolder } from "../../weights/index.js";

/** The methods' own settings, or others that are published for the kind of model. */
export const nothingMeasured = (levels: readonly string[], presets: CachePresets = defaultPresets): CacheFacts => ({
  levels,
  presets,
  schedules: [],
  qualities: {},
  solvers: [],
});

/**
 * What was measured on the model, if it came with that.
 * @param published settings of the methods for the kind of model, where the model does not say
 * @throws FemoError E_CONFIG if what it came with is malformed
 */
export async function cachingOf(
  folder: ModelFolder,
  levels: readonly string[],
  published: CachePresets = defaultPresets,
): Promise<CacheFacts> {
  const facts: { -readonly [Fact in keyof CacheFacts]: CacheFacts[Fact] } = nothingMeasured(levels, published);
  const named = (file: string): string => `${folder.name}/${file}`;
  const { presets, schedules, qualities, solvers } = MEASURED_FILES;
  const [own, placed, traded, fitted] = await Promise.all(
    [presets, schedules, qualities, solvers].map((file) => folder.measured(file)),
  );
  if (own !== undefined) facts.presets = presetsFromJson(own, published, levels, named(presets));
  if (placed !== undefined) facts.schedules = schedulesFromJson(placed, named(schedules));
  if (traded !== undefined) facts.qualities = qualitiesFromJson(traded, facts.presets, levels, named(qualities));
  if (fitted !== undefined) facts.solvers = solversFromJson(fitted, named(solvers));
  return facts;
}
