import { describe, expect, test } from "vitest";
import { cropPlanes, type Planes, toRgb } from "../../src/images/planes.js";
import { tiledDecode } from "../../src/images/tiled-decode.js";
import { LatentDecoder } from "../../src/pipelines/decoder.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { openAutoencoder, openDecoded, planesOf } from "../models/autoencoders.js";
import { engineForTests, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const openDecoder = async (): Promise<{ decoder: LatentDecoder; tileSize: number }> => {
  const { config, checkpoint } = await openAutoencoder("sd");
  const decoder = new LatentDecoder(config, checkpoint, new Sessions(engine, 0));
  return { decoder, tileSize: config.sampleSize / decoder.stride };
};
/** Every pixel four times: what a decoder without context would do. */
const enlarge = async ({ dims: [channels, height, width], data }: Planes): Promise<Planes> => ({
  dims: [channels, 2 * height, 2 * width],
  data: Float32Array.from({ length: 4 * data.length }, (_, i) => {
    const [row, column] = [Math.floor(i / (2 * width)), i % (2 * width)];
    return data[Math.floor(row / 2) * width + Math.floor(column / 2)] as number;
  }),
});

describe("the decoder", () => {
  test("in tiles equals diffusers, whose last tiles are narrower than the overlap", async () => {
    const { decoder, tileSize } = await openDecoder();
    const golden = await openDecoded("tiled");
    const latent = planesOf(await golden("latent"));
    const image = await decoder.decode(latent, { tileSize });
    const wanted = planesOf(await golden("image"));
    expect(image.dims).toEqual(wanted.dims);
    expect(relativeError(image.data, wanted.data)).toBeLessThan(1e-5);
    const whole = await decoder.decode(latent);
    expect(relativeError(whole.data, wanted.data)).toBeGreaterThan(0.01); // each tile has norms of its own
  });

  test("one session serves all sizes; without tiles it equals diffusers image by image", async () => {
    const { decoder, tileSize } = await openDecoder();
    const golden = await openDecoded("sd");
    const [latents, images] = [await golden("latent"), await golden("image")];
    for (const i of [0, 1]) {
      const half = ({ data }: typeof latents) => data.slice((i * data.length) / 2, ((i + 1) * data.length) / 2);
      const latent = planesOf({ ...latents, data: half(latents) });
      for (const size of [undefined, tileSize, 64]) {
        const image = await decoder.decode(latent, { tileSize: size });
        expect(relativeError(image.data, numbers({ ...images, data: half(images) }))).toBeLessThan(1e-5);
      }
    }
  });

  test("loads again after release, and refuses latents of other channels", async () => {
    const { decoder } = await openDecoder();
    const latent = planesOf(noise([4, 3, 5], 1));
    const image = await decoder.decode(latent);
    await decoder.network.release();
    expect(await decoder.decode(latent)).toEqual(image);
    await femoError("E_RUNTIME", () => decoder.decode(planesOf(noise([3, 3, 5], 1))));
  });
});

describe("tiles", () => {
  test.each([
    [5, 7, 8],
    [8, 8, 8],
    [9, 8, 8],
    [6, 31, 4],
    [23, 17, 8],
    [1, 40, 12],
  ])("a %i x %i latent in tiles of %i has no seams if tiles agree where they overlap", async (height, width, size) => {
    const latent = planesOf(noise([2, height, width], 3));
    const image = await tiledDecode(latent, 2, enlarge, { tileSize: size });
    const whole = await enlarge(latent);
    expect(image.dims).toEqual(whole.dims);
    expect(relativeError(image.data, whole.data)).toBeLessThan(1e-6);
  });

  test("where tiles disagree the later one fades in linearly over a quarter", async () => {
    let value = 0;
    const constant = async ({ dims: [, h, w] }: Planes): Promise<Planes> => ({
      dims: [1, h, w],
      data: new Float32Array(h * w).fill(value++),
    });
    const latent = planesOf(noise([1, 1, 10], 1));
    const { data } = await tiledDecode(latent, 1, constant, { tileSize: 8 }); // tiles of 0 to 8 and 6 to 10
    expect([...data]).toEqual([0, 0, 0, 0, 0, 0, 0, 0.5, 1, 1]);
  });

  test("stop between tiles, with the signal's reason", async () => {
    const controller = new AbortController();
    let decoded = 0;
    const decode = (tile: Planes): Promise<Planes> => {
      if (++decoded === 3) controller.abort(new Error("enough"));
      return enlarge(tile);
    };
    const latent = planesOf(noise([1, 20, 20], 1));
    const run = tiledDecode(latent, 2, decode, { tileSize: 8, signal: controller.signal });
    await expect(run).rejects.toThrow("enough");
    expect(decoded).toBe(3);
    await expect(tiledDecode(latent, 2, decode, { signal: controller.signal })).rejects.toThrow("enough");
    expect(decoded).toBe(3);
  });

  test.each([0, -8, 6, 2.5, Number.NaN, Number.POSITIVE_INFINITY])("of %d are refused", async (tileSize) => {
    const latent = planesOf(noise([1, 4, 4], 1));
    const message = await femoError("E_OPTION", () => tiledDecode(latent, 2, enlarge, { tileSize }));
    expect(message).toContain(`found ${tileSize}`);
  });

  test("a crop at the border is what is left", () => {
    const planes = { dims: [2, 2, 3] as const, data: Float32Array.from({ length: 12 }, (_, i) => i) };
    expect(cropPlanes(planes, 1, 1, 4)).toEqual({ dims: [2, 1, 2], data: Float32Array.of(4, 5, 10, 11) });
  });
});

describe("bytes", () => {
  test("are those of diffusers, halves included", async () => {
    const golden = await openDecoded("rgb");
    const planes = planesOf(await golden("x"));
    const wanted = await golden("bytes");
    const { width, height, data } = toRgb(planes);
    expect([height, width, 3]).toEqual(wanted.dims);
    expect([...data]).toEqual(numbers(wanted));
  });

  test("need three planes", async () => {
    await femoError("E_IMAGE", () => toRgb(planesOf(noise([4, 1, 1], 1))));
  });
});
