import type { ImageStart } from "../denoising/index.js";
import { sizeOf } from "../graph/index.js";
import type { Planes } from "../images/index.js";
import { noised, TorchGenerator } from "../samplers/index.js";
import type { LatentDistribution } from "./encoder.js";
import type { PipelineParts, Subject } from "./family.js";
import { repaintingInputs as names, repaints } from "./repainting.js";
import type { Request } from "./request.js";

type Start = Omit<ImageStart, "index" | "rows" | "sizes">;

/** What images start from: noise, or a picture and noise. Each draws from a generator of its own, in diffusers' order. */
export class Starts {
  readonly #parts: PipelineParts;
  readonly #request: Request;
  readonly #dims: readonly number[];
  readonly #encoded = new Map<Planes, Promise<LatentDistribution>>();

  /** @param dims of a latent, [C, h, w] */
  constructor(parts: PipelineParts, request: Request, dims: readonly number[]) {
    this.#parts = parts;
    this.#request = request;
    this.#dims = dims;
  }

  /** @param image its index in the request */
  async of(image: number): Promise<Start> {
    const { latents, seeds, sampler, subjects } = this.#request;
    const size = sizeOf(this.#dims);
    const seed = seeds[image];
    const generator = seed === undefined ? undefined : new TorchGenerator(seed);
    const draw = (): Float32Array => (generator as TorchGenerator).randn([1, ...this.#dims]);
    const { beginning } = subjects[image] as Subject;
    if (beginning) return { ...(await this.#begun(beginning, draw)), draw };
    if (latents) return { latent: latents.slice(image * size, (image + 1) * size), ...(generator && { draw }) };
    return { latent: scaled(draw(), sampler.initNoiseSigma), draw };
  }

  async #begun({ image, mask, masked }: NonNullable<Subject["beginning"]>, draw: () => Float32Array): Promise<Start> {
    const { sampler, strength = 1, backbone } = this.#request;
    const takesMask = repaints(backbone.model);
    const fresh = mask !== undefined && strength === 1;
    const picture = await this.#distribution(image);
    // A network that repaints does not need the picture where nothing of it is left.
    const clean = takesMask && fresh ? undefined : picture.sample(draw());
    const noise = draw();
    const latent = fresh || !clean ? scaled(noise, sampler.initNoiseSigma) : noised(sampler, 0, clean, noise);
    if (!mask || !masked) return { latent };
    const latentOfMasked = (await this.#distribution(masked)).sample(draw());
    if (takesMask) return { latent, given: { [names.mask]: mask, [names.masked]: latentOfMasked } };
    const known = clean as Float32Array;
    return {
      latent,
      keep: (step, now) => {
        const isLast = step + 1 === sampler.timesteps.length;
        const then = isLast ? known : noised(sampler, step + 1, known, noise);
        return now.map((x, k) => {
          const m = mask[k % mask.length] as number;
          return (1 - m) * (then[k] as number) + m * x;
        });
      },
    };
  }

  #distribution(image: Planes): Promise<LatentDistribution> {
    const known = this.#encoded.get(image);
    if (known) return known;
    const { encoder } = this.#parts;
    if (!encoder) throw new Error("a family that begins with pictures has no encoder");
    const made = encoder.encode(image);
    this.#encoded.set(image, made);
    return made;
  }
}

const scaled = (values: Float32Array, by: number): Float32Array => (by === 1 ? values : values.map((x) => x * by));
