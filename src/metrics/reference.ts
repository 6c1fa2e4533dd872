import { FemoError } from "../errors.js";
import type { NpzFile } from "../weights/index.js";
import type { PauseOptions } from "./matrix.js";
import { fitMoments, type GaussianFit } from "./moments.js";

/** Which features a reference is of: FID's, or sFID's. */
export type FeatureKind = "pool_3" | "spatial";

/** Names of mean and covariance in files of pytorch-fid, clean-fid and ADM. */
const NAMES: Readonly<Record<FeatureKind, readonly [string, string]>> = {
  pool_3: ["mu", "sigma"],
  spatial: ["mu_s", "sigma_s"],
};

/** Whether a file holds moments: a mean and a covariance of features. */
export const hasMoments = (file: NpzFile, kind: FeatureKind = "pool_3"): boolean =>
  NAMES[kind].every((name) => file.names.includes(name));

/**
 * The moments of a reference file, as a Gaussian. It does not say of how many images they are.
 * @throws FemoError E_FILE if it lacks them or they do not fit each other; the signal's reason
 */
export async function referenceFit(file: NpzFile, kind: FeatureKind, options: PauseOptions = {}): Promise<GaussianFit> {
  const [mean, covariance] = NAMES[kind];
  const [mu, sigma] = [await file.array(mean), await file.array(covariance)];
  const [width = 0] = mu.shape;
  if (mu.shape.length !== 1 || sigma.shape.join() !== `${width},${width}`) {
    const found = `[${mu.shape.join(", ")}] and [${sigma.shape.join(", ")}]`;
    throw new FemoError("E_FILE", `${file.name}: expected a mean and a covariance of one size, found ${found}.`);
  }
  const matrix = { rows: width, columns: width, data: sigma.values };
  return fitMoments({ count: undefined, mean: mu.values, covariance: matrix }, options);
}
