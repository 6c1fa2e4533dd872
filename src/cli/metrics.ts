import { Argument, Command, Option } from "commander";
import type { RgbImage } from "../images/index.js";
import {
  type ClipConvention,
  clipConventions,
  clipScore,
  type FidConvention,
  fidConventions,
  fidResult,
  type ImageSource,
  imageTasks,
  kernelDistance,
  MetricNetworks,
  type MetricResult,
  meanResult,
  pairTasks,
  precisionRecall,
  promptTasks,
  psnr,
  REWARD_TOKENS,
  type RowStore,
  rowsOfTasks,
  type SsimWindow,
  ssim,
  type Task,
  type WeightHashes,
} from "../metrics/index.js";
import type { FeatureKind } from "../metrics/reference.js";
import { inceptionWidths } from "../models/inception-v3.js";
import { type LpipsNet, lpipsNets } from "../models/lpips.js";
import { bytesText } from "../studies/table.js";
import { idsWithoutPadding } from "../tokenizers/index.js";
import { textOf } from "./files.js";
import { imagesAt } from "./image-folders.js";
import { type CommandContext, integer } from "./options.js";
import { jsonText, print, warn } from "./output.js";
import { type Progress, progressLine } from "./progress.js";
import { momentsAt } from "./reference-moments.js";
import { digestOf, RowFile, type RowType } from "./row-file.js";

interface MetricFlags {
  weights?: string;
  anyWeights?: boolean;
  cacheDir?: string;
  cache: boolean;
  threads?: number;
  batchSize: number;
  json?: boolean;
  quiet?: boolean;
}

/** What a metric is computed with: its flags, and what the process shows and is told. */
interface Work<Flags extends MetricFlags = MetricFlags> {
  readonly flags: Flags;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** `femo metrics`: numbers of images in folders. */
export function metricsCommand(context: CommandContext): Command {
  const parent = new Command("metrics").description("FID, LPIPS, CLIP score and others of images in folders");
  for (const make of [fid, kid, precisionAndRecall, lpipsCommand, psnrCommand, ssimCommand, clip, imageRewardCommand]) {
    parent.addCommand(make(context));
  }
  return parent;
}

const GENERATED = "folder of PNG files, or .npz of samples";
const REFERENCE = `${GENERATED}, or of statistics (mu, sigma)`;

const networkOptions = (command: Command): Command =>
  command
    .option("--weights <path>", "folder or file of the weights (default: downloaded once)")
    .option("--any-weights", "take weights that are not the published ones")
    .option("--cache-dir <path>", "folder of downloads")
    .option("--no-cache", "neither use nor keep what is computed of each image")
    .option("--threads <n>", "CPU threads (default: one per physical core)", integer)
    .option("--batch-size <n>", "images at a time", integer, 8);

const outputOptions = (command: Command): Command =>
  command.option("--json", "print JSON, with a value for each image").option("--quiet", "show no progress");

const convention = (): Option =>
  new Option("--convention <name>", "how images come to the network").choices(fidConventions).default("pytorch");

/** Runs a metric and prints what it says. */
async function run<Flags extends MetricFlags>(
  flags: Flags,
  { signal }: CommandContext,
  compute: (work: Work<Flags>) => Promise<readonly MetricResult[]>,
): Promise<void> {
  const progress = progressLine(flags.quiet);
  let results: readonly MetricResult[];
  try {
    results = await compute({ flags, progress, signal });
  } finally {
    progress.clear();
  }
  if (flags.json) return print(jsonText(results.length === 1 ? results[0] : results, 2));
  for (const result of results) {
    print(resultText(result));
    warn(result.notes ?? []);
  }
}

function resultText({ metric, value, count, standardError }: MetricResult): string {
  const error = standardError === undefined ? "" : ` +- ${standardError.toPrecision(2)}`;
  return `${metric}  ${Number(value.toPrecision(7))}${error}  (${count} ${count === 1 ? "image" : "images"})`;
}

/** Networks of a metric, which are closed when it is over. */
async function withNetworks<T>(
  { flags, progress, signal }: Work,
  use: (networks: MetricNetworks) => Promise<T>,
): Promise<T> {
  const { weights, anyWeights, cacheDir, threads } = flags;
  const networks = await MetricNetworks.open({
    ...{ weights, anyWeights, cacheDir, threads, signal },
    onProgress: ({ file, bytesDone, bytesTotal }) =>
      progress.show(`downloading ${file}, ${bytesText(bytesDone)} of ${bytesText(bytesTotal)}`, bytesDone / bytesTotal),
    onConvert: ({ tensorsDone, tensorsTotal }) =>
      progress.show(`folding batch norms, ${tensorsDone} of ${tensorsTotal}`, tensorsDone / tensorsTotal),
  });
  try {
    return await use(networks);
  } finally {
    await networks.close();
  }
}

/** Rows of tasks, out of the cache as far as they are there. */
async function rows<Input, Row extends Float32Array | Float64Array>(
  work: Work,
  what: string,
  tasks: readonly Task<Input>[],
  kind: { readonly names: readonly string[]; readonly width: number; readonly type: RowType },
  compute: (batch: readonly Input[]) => Promise<readonly Row[]>,
): Promise<Row[]> {
  const { flags, progress, signal } = work;
  const store: (RowStore & { close(): Promise<void> }) | undefined = flags.cache
    ? await RowFile.open(kind.names, kind.width, kind.type)
    : undefined;
  try {
    return await rowsOfTasks(tasks, compute, {
      ...{ store, signal, batchSize: flags.batchSize },
      onProgress: (done, total) => progress.show(`${what}, ${done} of ${total}`, done / total),
    });
  } finally {
    await store?.close();
  }
}

const hashesOf = (weights: WeightHashes): string[] => Object.entries(weights).flat();

interface InceptionFlags extends MetricFlags {
  convention: FidConvention;
}

/** Features of sets of images. */
async function features(
  work: Work<InceptionFlags>,
  kind: FeatureKind,
  ...paths: readonly string[]
): Promise<{ sets: readonly Float32Array[][]; weights: WeightHashes }> {
  const images: (readonly ImageSource[])[] = [];
  for (const path of paths) images.push(await imagesAt(path));
  return withNetworks(work, async (networks) => {
    const { network, weights } = await networks.inception([kind]);
    const { convention } = work.flags;
    const names = ["inception", convention, kind, ...hashesOf(weights)];
    const stored = { names, width: inceptionWidths[kind], type: "float32" } as const;
    const sets: Float32Array[][] = [];
    for (const [i, set] of images.entries()) {
      const compute = async (batch: readonly RgbImage[]) => (await network.features(batch, convention))[kind];
      sets.push(await rows(work, `features of ${paths[i]}`, imageTasks(set), stored, compute));
    }
    return { sets, weights };
  });
}

interface FidFlags extends InceptionFlags {
  spatial?: boolean;
  infinity?: boolean;
}

const fid = (context: CommandContext): Command =>
  outputOptions(networkOptions(new Command("fid").description("Frechet distance of Inception's features")))
    .addArgument(new Argument("<generated>", GENERATED))
    .addArgument(new Argument("<reference>", REFERENCE))
    .addOption(convention())
    .option("--spatial", "sFID: of features that keep their place")
    .option("--infinity", "also at infinitely many images; of more than 5000")
    .action((generated: string, reference: string, flags: FidFlags) =>
      run(flags, context, async (work) => {
        const kind = flags.spatial ? "spatial" : "pool_3";
        const moments = await momentsAt(reference, kind, {
          keep: work.flags.cache,
          progress: work.progress,
          signal: work.signal,
        });
        const { sets, weights } = await features(work, kind, generated, ...(moments ? [] : [reference]));
        const [images, others] = sets as [Float32Array[], Float32Array[] | undefined];
        work.progress.show("distance", 0);
        const result = await fidResult(images, moments ?? (others as Float32Array[]), {
          ...{ weights, signal: work.signal, infinity: flags.infinity },
          metric: `${flags.spatial ? "sfid" : "fid"}:${flags.convention}`,
          onProgress: (done, total) => work.progress.show(`at infinity, ${done} of ${total}`, done / total),
        });
        return [result];
      }),
    );

interface KidFlags extends InceptionFlags {
  subsets?: number;
  subsetSize?: number;
  seed: number;
}

const kid = (context: CommandContext): Command =>
  outputOptions(networkOptions(new Command("kid").description("kernel distance of Inception's features")))
    .addArgument(new Argument("<generated>", GENERATED))
    .addArgument(new Argument("<reference>", GENERATED))
    .addOption(convention())
    .option("--subsets <n>", "random subsets (default: 100; one if they are the sets)", integer)
    .option("--subset-size <n>", "images of a subset (default: 1000, or as many as there are)", integer)
    .option("--seed <n>", "of the subsets", integer, 2020)
    .action((generated: string, reference: string, flags: KidFlags) =>
      run(flags, context, async (work) => {
        const { sets, weights } = await features(work, "pool_3", generated, reference);
        const [images, others] = sets as [Float32Array[], Float32Array[]];
        work.progress.show("distance", 0);
        const { subsets, subsetSize, seed } = flags;
        const { value, ...details } = await kernelDistance(images, others, {
          ...{ subsets, subsetSize, seed, signal: work.signal },
        });
        const counts = { generated: images.length, reference: others.length };
        const result: MetricResult = {
          ...{ metric: `kid:${flags.convention}`, value, count: images.length, weights },
          details: { ...details, seed, counts },
        };
        return [result];
      }),
    );

interface PrecisionFlags extends InceptionFlags {
  neighbours: number;
}

const precisionAndRecall = (context: CommandContext): Command =>
  outputOptions(
    networkOptions(new Command("precision-recall").description("how good, and how varied, by Inception's features")),
  )
    .addArgument(new Argument("<generated>", GENERATED))
    .addArgument(new Argument("<reference>", GENERATED))
    .addOption(convention())
    .option("--neighbours <n>", "how far a neighbourhood reaches", integer, 3)
    .action((generated: string, reference: string, flags: PrecisionFlags) =>
      run(flags, context, async (work) => {
        const { sets, weights } = await features(work, "pool_3", generated, reference);
        const [images, others] = sets as [Float32Array[], Float32Array[]];
        work.progress.show("neighbourhoods", 0);
        const { neighbours } = flags;
        const { precision, recall } = await precisionRecall(others, images, {
          ...{ k: neighbours, signal: work.signal },
        });
        const counts = { generated: images.length, reference: others.length };
        const common = { count: images.length, weights, details: { neighbours, counts } };
        return [
          { metric: `precision:${flags.convention}`, value: precision, ...common },
          { metric: `recall:${flags.convention}`, value: recall, ...common },
        ];
      }),
    );

const pairArguments = (command: Command): Command =>
  command
    .addArgument(new Argument("<images>", GENERATED))
    .addArgument(new Argument("<reference>", `${GENERATED}, of the same names`));

interface LpipsFlags extends MetricFlags {
  net: LpipsNet;
}

const lpipsCommand = (context: CommandContext): Command =>
  outputOptions(networkOptions(pairArguments(new Command("lpips").description("distance of pairs as people see it"))))
    .addOption(new Option("--net <name>", "which network").choices(lpipsNets).default("alex"))
    .action((images: string, reference: string, flags: LpipsFlags) =>
      run(flags, context, async (work) => {
        const tasks = pairTasks(await imagesAt(images), await imagesAt(reference), digestOf);
        return withNetworks(work, async (networks) => {
          const { network, weights } = await networks.lpips(flags.net);
          const kind = { names: ["lpips", ...hashesOf(weights)], width: 1, type: "float64" } as const;
          const values = await rows(work, "pairs", tasks, kind, async (batch) => {
            const found: Float64Array[] = [];
            for (const [a, b] of batch) found.push(Float64Array.of((await network.distance(a, b)).value));
            return found;
          });
          return [meanOf(`lpips:${flags.net}`, tasks, values, { weights })];
        });
      }),
    );

const meanOf = (
  metric: string,
  tasks: readonly Task<unknown>[],
  values: readonly Float64Array[],
  rest?: Pick<MetricResult, "weights" | "details" | "notes">,
): MetricResult =>
  meanResult(
    metric,
    tasks.map(({ name }) => name),
    values.map(([value]) => value as number),
    rest,
  );

/** Metrics of pairs that need no network. */
const pixelCommand = (
  command: Command,
  context: CommandContext,
  metric: (flags: MetricFlags & { window: SsimWindow }) => readonly [name: string, of: typeof psnr],
): Command =>
  outputOptions(pairArguments(command)).action(
    (images: string, reference: string, flags: MetricFlags & { window: SsimWindow }) =>
      run({ ...flags, cache: false, batchSize: 1 }, context, async (work) => {
        const [name, of] = metric(flags);
        const tasks = pairTasks(await imagesAt(images), await imagesAt(reference), digestOf);
        const kind = { names: [], width: 1, type: "float64" } as const;
        const values = await rows(work, "pairs", tasks, kind, async (batch) =>
          batch.map(([a, b]) => Float64Array.of(of(a, b))),
        );
        return [meanOf(name, tasks, values)];
      }),
  );

const psnrCommand = (context: CommandContext): Command =>
  pixelCommand(new Command("psnr").description("peak signal-to-noise ratio of pairs"), context, () => ["psnr", psnr]);

const ssimCommand = (context: CommandContext): Command =>
  pixelCommand(
    new Command("ssim")
      .description("structural similarity of pairs")
      .addOption(
        new Option("--window <name>", "over which pixels").choices(["gaussian", "uniform7"]).default("gaussian"),
      ),
    context,
    ({ window }) => [`ssim:${window}`, (a, b) => ssim(a, b, window)],
  );

interface PromptFlags extends MetricFlags {
  prompts: string;
}

const promptArguments = (command: Command): Command =>
  command
    .addArgument(new Argument("<images>", GENERATED))
    .requiredOption("--prompts <file>", "a prompt a line, in the order of the images' names");

/** @throws FemoError E_FILE if it cannot be read */
const promptsOf = (path: string): string[] =>
  textOf(path)
    .replace(/\r?\n$/, "")
    .split(/\r?\n/);

interface ClipFlags extends PromptFlags {
  model: ClipConvention;
}

const clip = (context: CommandContext): Command =>
  outputOptions(
    networkOptions(promptArguments(new Command("clip").description("CLIP score: 100 cos of image and prompt"))),
  )
    .addOption(new Option("--model <name>", "which CLIP").choices(clipConventions).default("L/14"))
    .action((images: string, flags: ClipFlags) =>
      run(flags, context, async (work) => {
        const prompts = promptsOf(flags.prompts);
        const tasks = promptTasks(await imagesAt(images), prompts, digestOf);
        return withNetworks(work, async (networks) => {
          const { network, tokenizer, rescaling, weights } = await networks.clip(flags.model);
          const texts = new Map<string, Float32Array>();
          const longest = network.maxTokens;
          const textFeatures = async (prompt: string): Promise<Float32Array> => {
            const known = texts.get(prompt);
            if (known) return known;
            const [made] = await network.textFeatures([idsWithoutPadding(tokenizer, prompt, longest)]);
            texts.set(prompt, made as Float32Array);
            return made as Float32Array;
          };
          const cut = prompts.filter((prompt) => tokenizer.encode(prompt, longest).dropped > 0).length;
          const kind = { names: ["clip", flags.model, ...hashesOf(weights)], width: 1, type: "float64" } as const;
          const values = await rows(work, "images", tasks, kind, async (batch) => {
            const seen = await network.imageFeatures(
              batch.map(({ image }) => image),
              rescaling,
            );
            const scores: Float64Array[] = [];
            for (const [i, { prompt }] of batch.entries()) {
              scores.push(Float64Array.of(clipScore(seen[i] as Float32Array, await textFeatures(prompt))));
            }
            return scores;
          });
          const notes = [
            ...(cut > 0 ? [`${cut} prompts have more than ${longest} tokens and were cut, their end kept`] : []),
            ...(rescaling === "once"
              ? []
              : ["images were scaled twice, as some papers do by mistake: no measure of anything"]),
          ];
          return [meanOf(`clip:${flags.model}`, tasks, values, { weights, ...(notes.length > 0 && { notes }) })];
        });
      }),
    );

const imageRewardCommand = (context: CommandContext): Command =>
  outputOptions(
    networkOptions(
      promptArguments(new Command("image-reward").description("ImageReward: how people would rate an image")),
    ),
  ).action((images: string, flags: PromptFlags) =>
    run(flags, context, async (work) => {
      const prompts = promptsOf(flags.prompts);
      const tasks = promptTasks(await imagesAt(images), prompts, digestOf);
      return withNetworks(work, async (networks) => {
        const { network, tokenizer, weights } = await networks.imageReward();
        const kind = { names: ["image-reward", ...hashesOf(weights)], width: 1, type: "float64" } as const;
        const cut = prompts.filter((prompt) => tokenizer.encode(prompt, REWARD_TOKENS).dropped > 0).length;
        const values = await rows(work, "images", tasks, kind, async (batch) => {
          const found: Float64Array[] = [];
          for (const { image, prompt } of batch)
            found.push(
              Float64Array.of(await network.reward(image, idsWithoutPadding(tokenizer, prompt, REWARD_TOKENS))),
            );
          return found;
        });
        const notes = cut > 0 ? [`${cut} prompts have more than ${REWARD_TOKENS} tokens and were cut`] : [];
        return [meanOf("image-reward:1.0", tasks, values, { weights, ...(notes.length > 0 && { notes }) })];
      });
    }),
  );
