import { FemoError } from "../errors.js";
import type { GaussianFit } from "../metrics/index.js";
import { type FeatureKind, hasMoments, referenceFit } from "../metrics/reference.js";
import { openFile } from "../platform/node/file.js";
import { sha256Of } from "../platform/node/published.js";
import { readNpz } from "../weights/index.js";
import type { Progress } from "./progress.js";
import { RowFile } from "./row-file.js";

interface MomentsOptions {
  /** Whether the factors are kept for the next time. */
  readonly keep: boolean;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** The moments of a reference file, factored once and kept; undefined of images. */
export async function momentsAt(
  path: string,
  kind: FeatureKind,
  { keep, progress, signal }: MomentsOptions,
): Promise<GaussianFit | undefined> {
  if (!path.endsWith(".npz")) return undefined;
  const source = await openFile(path);
  try {
    const npz = await readNpz(source);
    if (!hasMoments(npz, kind)) {
      if (npz.names.includes("arr_0")) return undefined;
      throw new FemoError(
        "E_FILE",
        `${path}: expected statistics of ${kind === "pool_3" ? "mu and sigma" : "mu_s and sigma_s"}, found ${npz.names.join(", ")}`,
      );
    }
    progress.show(`factoring the covariance of ${path}`, 0);
    const width = (await npz.header(kind === "pool_3" ? "mu" : "mu_s"))?.shape[0] ?? 0;
    const numbers = 1 + width + width * width;
    const store = keep ? await RowFile.open(["reference", kind], numbers, "float64") : undefined;
    try {
      const digest = await sha256Of(path, signal);
      const known = (await store?.get(digest)) as Float64Array | undefined;
      if (known) return unpackFit(known, width);
      const fit = await referenceFit(npz, kind, { signal });
      await store?.add([[digest, packFit(fit)]]);
      return fit;
    } finally {
      await store?.close();
    }
  } finally {
    await source.close();
  }
}

/** Trace, mean and root; rows of the root that a singular covariance lacks are zeros. */
function packFit({ trace, mean, root }: GaussianFit): Float64Array {
  const packed = new Float64Array(1 + mean.length + mean.length ** 2);
  packed[0] = trace;
  packed.set(mean, 1);
  packed.set(root.data, 1 + mean.length);
  return packed;
}

function unpackFit(packed: Float64Array, width: number): GaussianFit {
  const data = packed.subarray(1 + width);
  let rank = width;
  while (rank > 0 && data.subarray((rank - 1) * width, rank * width).every((x) => x === 0)) rank--;
  const root = { rows: rank, columns: width, data: data.slice(0, rank * width) };
  return { count: undefined, trace: packed[0] as number, mean: packed.slice(1, 1 + width), root };
}
