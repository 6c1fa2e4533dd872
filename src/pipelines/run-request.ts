import { Conditioning, type Conditions, type DenoisingStep, denoise, type StepRecord } from "../denoising/index.js";
import { sizeOf } from "../graph/index.js";
import { type Planes, type RgbImage, toRgb } from "../images/index.js";
import { isStochastic, type SamplerName, samplerTitle } from "../samplers/index.js";
import { type BatchGroup, batchGroups, rowsOf } from "./batches.js";
import type { Condition, Encoded, PipelineParts, Subject } from "./family.js";
import { uncachedFlops } from "./planned-flops.js";
import type { GenerationReport } from "./report.js";
import type { Request, StepProgress } from "./request.js";
import type { GeneratedImage, GenerationResult } from "./result.js";
import { Starts } from "./starts.js";

let requests = 0;

/**
 * Carries out a request: for every batch of images the conditions that it needs, the denoising, and the decoding.
 * @throws FemoError E_RUNTIME if a value is not finite; the signal's reason if it was aborted
 */
export async function* runRequest(
  parts: PipelineParts,
  request: Request,
): AsyncGenerator<StepProgress, GenerationResult> {
  const start = performance.now();
  const { backbone } = request;
  request.signal?.throwIfAborted();
  const id = `request-${++requests}`;
  const dims = backbone.sampleDims(request.sizes);
  const size = sizeOf(dims);
  const starts = new Starts(parts, request, dims);
  const latents = new Float32Array(request.subjects.length * size);
  const images: GeneratedImage[] = [];
  const batches: { images: readonly number[]; steps: StepRecord[] }[] = [];
  const notes = new Set<string>();
  const costs = { encodingMs: 0, conditioningMs: 0, conditioningFlops: 0, decodingMs: 0, stateBytes: 0 };

  for (const group of batchGroups(request)) {
    request.onPhase?.("encoding");
    const encoding = performance.now();
    const conditions = await encoded(parts, group.conditions, request.signal);
    costs.encodingMs += performance.now() - encoding;
    for (const note of conditions.notes) notes.add(note);
    request.onPhase?.("conditioning");
    const conditioning = await Conditioning.compute(backbone, id, request.sampler.timesteps, conditions, request.sizes);
    costs.conditioningMs += conditioning.durationMs;
    costs.conditioningFlops += conditioning.flops;
    try {
      for (const members of group.batches) {
        const steps: StepRecord[] = [];
        batches.push({ images: members, steps });
        request.onPhase?.("denoising");
        const denoising = denoise({
          backbone,
          conditioning,
          sampler: request.sampler,
          method: request.method,
          images: await Promise.all(
            members.map(async (index) => ({
              index,
              rows: rowsOf(request, index).map((row) => ({ ...row, condition: conditions.rowOf(row.condition) })),
              sizes: request.sizes,
              ...(await starts.of(index)),
            })),
          ),
          guidanceChannels: request.guidanceChannels,
          guidanceRescale: request.guidanceRescale,
          prefix: id,
          signal: request.signal,
          observe: request.observe,
        });
        const done = yield* told(denoising, steps, request.sampler.timesteps.length);
        costs.stateBytes = Math.max(costs.stateBytes, done.stateBytes);
        if (request.outputType === "image") request.onPhase?.("decoding");
        const decoding = performance.now();
        for (const [i, index] of members.entries()) {
          const latent = done.latents[i] as Float32Array;
          latents.set(latent, index * size);
          if (request.outputType === "latent") continue;
          const pixels = await decoded(parts, request, { dims: dims as unknown as Planes["dims"], data: latent });
          images.push({ ...pixels, ...(request.subjects[index] as Subject).about, seed: request.seeds[index] });
        }
        costs.decodingMs += performance.now() - decoding;
      }
    } finally {
      await conditioning.free().catch(() => {}); // an engine that is closed holds nothing
    }
  }
  const report = reportOf(parts, request, batches, costs, [...notes]);
  return { images, latents, report: { ...report, totalMs: performance.now() - start } };
}

/** Conditions as the network takes them, and which row each is. */
async function encoded(
  { family }: PipelineParts,
  conditions: BatchGroup["conditions"],
  signal: AbortSignal | undefined,
): Promise<Conditions & Pick<Encoded, "notes"> & { rowOf(condition: Condition): number }> {
  const encoded = await family.encode(conditions, signal);
  return { ...encoded, count: conditions.length, rowOf: (condition) => conditions.indexOf(condition) };
}

/** Hands on the steps of a batch and keeps their records. */
async function* told<T>(
  denoising: AsyncGenerator<DenoisingStep, T>,
  records: StepRecord[],
  numInferenceSteps: number,
): AsyncGenerator<StepProgress, T> {
  try {
    for (;;) {
      const { done, value } = await denoising.next();
      if (done) return value;
      const { latents, ...record } = value;
      records.push(record);
      yield { ...record, numInferenceSteps, latents };
    }
  } finally {
    await denoising.return(undefined as never);
  }
}

async function decoded({ decoder }: PipelineParts, request: Request, latent: Planes): Promise<RgbImage> {
  const tiles = { tileSize: request.decodeTileSize, signal: request.signal };
  return toRgb(decoder ? await decoder.decode(latent, tiles) : latent);
}

/** Of the work, the least saving that is worth a change of the images. */
const WORTHWHILE = 1.1;

/** A sentence if the cache could not help. */
function savingNotes({ method, numInferenceSteps: n }: Request, speedup: number): string[] {
  const neverSaves = Object.keys(method.cuts).length === 1; // there is no other than the full step
  if (neverSaves || speedup >= WORTHWHILE) return [];
  return [
    `The cache saved next to nothing: ${speedup.toFixed(2)} times fewer operations over ${n} steps. With so few steps, or ` +
      "at such settings, nearly every step is computed: leave the cache out, or give it a larger interval or threshold.",
  ];
}

/** A sentence if steps add what no forecast from those before can know. */
function noiseNotes({ cache: { settings }, sampler }: Request): string[] {
  if (settings.method === "none" || !isStochastic(sampler)) return [];
  return [
    `${samplerTitle(sampler.name as SamplerName)} adds fresh noise in its steps, of which a forecast from the steps before ` +
      "knows nothing: expect the cache to be further off than with a sampler that adds none.",
  ];
}

function reportOf(
  parts: PipelineParts,
  request: Request,
  batches: GenerationReport["batches"],
  costs: Pick<GenerationReport, "encodingMs" | "conditioningMs" | "decodingMs" | "stateBytes"> & {
    conditioningFlops: number;
  },
  notes: readonly string[],
): Omit<GenerationReport, "totalMs"> {
  const { name, backbone } = parts;
  const { conditioningFlops, ...measured } = costs;
  const records = batches.flatMap(({ steps }) => steps);
  const sum = (of: (step: StepRecord) => number): number => records.reduce((total, step) => total + of(step), 0);
  const uncached = conditioningFlops + uncachedFlops(request);
  const done = conditioningFlops + sum(({ flops }) => flops);
  const computed = records.filter(({ full, rejected }) => full && !rejected);
  return {
    model: name,
    dtype: backbone.dtype,
    numInferenceSteps: request.numInferenceSteps,
    guidanceScale: request.guidanceScale,
    guidanceChannels: request.guidanceChannels,
    ...request.settings,
    sampler: request.sampler.name as SamplerName,
    ...(request.samplerSettings && { samplerSettings: request.samplerSettings }),
    timestepSpacing: request.sampler.spacing,
    warnings: [
      ...notes,
      ...request.notes,
      ...request.sampler.notes,
      ...request.cache.notes,
      ...noiseNotes(request),
      ...savingNotes(request, uncached / done),
    ],
    cache: request.cache.settings,
    ...(request.cache.quality && { quality: request.cache.quality }),
    batches,
    fullSteps: request.subjects.map((_, image) =>
      computed.filter(({ images }) => images.includes(image)).map(({ step }) => step),
    ),
    guardedSteps: request.subjects.map((_, image) =>
      computed.filter(({ guarded }) => guarded?.includes(image)).map(({ step }) => step),
    ),
    flops: { done, uncached, speedup: uncached / done },
    stepsMs: sum(({ durationMs }) => durationMs),
    ...measured,
  };
}
