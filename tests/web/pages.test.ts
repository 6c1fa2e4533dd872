import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiffusionPipeline, type GenerateOptions } from "../../src/index.js";
import { FakeHub, refuse } from "../platform/hub/server.js";
import { tinyPipeline } from "../tiny-pipeline.js";
import { inChromium, launch, noBrowser, openPage, serveFemo } from "./browser.js";
import type { Site } from "./site.js";

type Femo = typeof import("../../src/index.js");
/** In a page. */
declare const femo: Femo;

/** What a page tells of requests that it drew, one after the other, with one pipeline. */
interface Drawn {
  readonly device: { readonly kind: string; readonly title: string };
  readonly images: readonly (readonly number[])[];
  readonly kinds: readonly (readonly string[])[];
}

type Drawing = { model: string; device: "wasm" | "webgpu" | "auto"; requests: readonly GenerateOptions[] };

const draw = (page: Page, what: Drawing): Promise<Drawn> =>
  page.evaluate(async ({ model, device, requests }) => {
    const pipeline = await femo.DiffusionPipeline.fromPretrained(model, { device });
    const [images, kinds]: [number[][], string[][]] = [[], []];
    for (const request of requests) {
      const { images: drawn, report } = await pipeline.generate(request);
      images.push([...(drawn[0]?.data ?? [])]);
      kinds.push((report.batches[0]?.steps ?? []).map(({ kind }) => kind));
    }
    const { kind, title } = pipeline.device;
    await pipeline.close();
    return { device: { kind, title }, images, kinds };
  }, what);

/** The message of the FemoError with which opening a model fails in a page. */
const failure = (page: Page, model: string, device = "wasm"): Promise<string> =>
  page.evaluate(
    async ([model, device]) => {
      try {
        const pipeline = await femo.DiffusionPipeline.fromPretrained(model as string, { device: device as "wasm" });
        await pipeline.close();
        return "opened";
      } catch (error) {
        return error instanceof femo.FemoError ? `${error.code} ${error.message}` : `not a FemoError: ${error}`;
      }
    },
    [model, device],
  );

async function drawHere(model: string, requests: readonly GenerateOptions[]): Promise<number[][]> {
  const pipeline = await DiffusionPipeline.fromPretrained(model, { threads: 1 });
  try {
    const images = [];
    for (const request of requests) images.push([...((await pipeline.generate(request)).images[0]?.data ?? [])]);
    return images;
  } finally {
    await pipeline.close();
  }
}

/** Pictures may differ by one level of 255. */
function expectClose(found: Drawn["images"], expected: readonly (readonly number[])[]): void {
  expect(found.map(({ length }) => length)).toEqual(expected.map(({ length }) => length));
  for (const [i, image] of expected.entries()) {
    const worst = image.reduce((most, level, j) => Math.max(most, Math.abs(level - (found[i]?.[j] ?? 256))), 0);
    expect(worst).toBeLessThanOrEqual(1);
  }
}

const tinyRequests: GenerateOptions[] = [
  { classLabels: ["ibis"], seed: 3, numInferenceSteps: 6, cache: "none" },
  {
    classLabels: ["oak"],
    seed: 4,
    numInferenceSteps: 6,
    cache: { method: "femo", interval: 3, granularity: "module" },
  },
];

describe.skipIf(noBrowser)(inChromium("in a page"), () => {
  let browser: Browser;
  let tiny: Awaited<ReturnType<typeof tinyPipeline>>;
  /** What Node draws of the requests to the tiny model. */
  let expected: number[][];
  let plain: Site;
  let isolated: Site;
  beforeAll(async () => {
    tiny = await tinyPipeline();
    expected = await drawHere(tiny.folder, tinyRequests);
    browser = await launch();
    const models = { tiny: tiny.folder, "avatars-flux": "models/avatars-flux" };
    plain = await serveFemo(models);
    isolated = await serveFemo(models, { isolated: true });
  });
  afterAll(async () => {
    await browser?.close();
    await plain?.close();
    await isolated?.close();
    tiny?.remove();
  });

  test("the embedded model draws as in Node, with a cache and without", async () => {
    const requests: GenerateOptions[] = [
      { prompt: "a lorelei portrait with red hair", seed: 7, numInferenceSteps: 4, cache: "none" },
      { prompt: "a micah portrait with black hair", seed: 8, numInferenceSteps: 8, cache: "femo" },
    ];
    const drawn = await draw(await openPage(browser, plain), {
      model: "/models/avatars-flux/",
      device: "wasm",
      requests,
    });
    expect(drawn.device).toEqual({ kind: "wasm", title: "WebAssembly, 1 thread" });
    expect(drawn.kinds[1]).toContain("forecast");
    expectClose(drawn.images, await drawHere("avatars-flux", requests));
  });

  test("a page that is isolated from others computes with several threads, and draws the same", async () => {
    const page = await openPage(browser, isolated);
    const drawn = await draw(page, { model: "/models/tiny/", device: "wasm", requests: tinyRequests });
    expect(drawn.device.title).toMatch(/^WebAssembly, [2-8] threads$/);
    expectClose(drawn.images, expected);
  });

  test("WebGPU draws as Node does, features kept in its memory", async () => {
    const page = await openPage(browser, plain);
    const drawn = await draw(page, { model: "/models/tiny/", device: "webgpu", requests: tinyRequests });
    expect(drawn.device.kind).toBe("webgpu");
    expect(drawn.kinds[1]).toContain("forecast");
    expectClose(drawn.images, expected);
  });

  test("a GPU that is lost fails what is under way, and the page draws again", async () => {
    const page = await openPage(browser, plain);
    const lost = page.evaluate(async (request) => {
      const pipeline = await femo.DiffusionPipeline.fromPretrained("/models/tiny/", { device: "webgpu" });
      document.title = "open";
      const fails = async () => {
        try {
          for (;;) await pipeline.generate(request);
        } catch (error) {
          return error instanceof femo.FemoError ? `${error.code} ${error.message}` : `not a FemoError: ${error}`;
        }
      };
      return [await fails(), await fails()];
    }, tinyRequests[0] as GenerateOptions);
    await page.waitForFunction(() => document.title === "open");
    const session = await browser.newBrowserCDPSession();
    await session.send("Browser.crashGpuProcess" as never).catch(() => {});
    const [first, then] = await lost;
    expect(first).toMatch(/^E_RUNTIME /);
    expect(then).toMatch(/^E_RUNTIME the GPU was lost/);
    const again = await draw(page, { model: "/models/tiny/", device: "wasm", requests: tinyRequests });
    expectClose(again.images, expected);
  });

  test("a request that is aborted ends, and the next one draws", async () => {
    const page = await openPage(browser, plain);
    const [reason, steps, pixels] = await page.evaluate(
      async ([request]) => {
        const pipeline = await femo.DiffusionPipeline.fromPretrained("/models/tiny/", { device: "wasm" });
        const controller = new AbortController();
        let done = 0;
        const onStep = () => {
          done++;
          controller.abort();
        };
        const reason = await pipeline
          .generate({ ...request, onStep, signal: controller.signal } as GenerateOptions)
          .catch((error: Error) => error.name);
        const { images } = await pipeline.generate(request as GenerateOptions);
        await pipeline.close();
        const closed = await pipeline.generate(request as GenerateOptions).catch((error: Error) => error.message);
        return [`${reason} ${closed}`, done, [...(images[0]?.data ?? [])]] as const;
      },
      [tinyRequests[0]],
    );
    expect(reason).toBe("AbortError the engine is closed");
    expect(steps).toBe(1);
    expectClose([pixels], expected.slice(0, 1));
  });

  test("what was loaded once is there without a network, and is not loaded again with one", async () => {
    const site = await serveFemo({ tiny: tiny.folder });
    try {
      const page = await openPage(browser, site);
      expect(await failure(page, "/models/tiny/")).toBe("opened");
      const weights = () => site.asked.filter((path) => path.endsWith(".safetensors"));
      const before = weights().length;
      expect(await failure(page, "/models/tiny/")).toBe("opened");
      expect(weights()).toHaveLength(before + 1); // a HEAD: whether it is still the same
      site.fault = ({ url }, response) => {
        if (!url?.startsWith("/models/")) return false;
        response.destroy();
        return true;
      };
      const drawn = await draw(page, { model: "/models/tiny/", device: "wasm", requests: tinyRequests });
      expectClose(drawn.images, expected);
      expect(await failure(page, "/models/never/")).toMatch(/^E_NETWORK .*Check the network/);
    } finally {
      await site.close();
    }
  });

  test("a download that breaks off goes on where it was, and one with other bytes is refused", async () => {
    const site = await serveFemo({ tiny: tiny.folder });
    try {
      const weights = /diffusion_pytorch_model\.safetensors$/;
      const file = join(tiny.folder, "transformer/diffusion_pytorch_model.safetensors");
      const bytes = readFileSync(file);
      let cut = 0;
      site.fault = ({ url, method }, response) => {
        if (method !== "GET" || !weights.test(url ?? "") || cut++ > 0) return false;
        response.writeHead(200, { "content-length": bytes.length });
        response.write(bytes.subarray(0, bytes.length / 2), () => setTimeout(() => response.destroy(), 200));
        return true;
      };
      const page = await openPage(browser, site);
      const drawn = await draw(page, { model: "/models/tiny/", device: "wasm", requests: tinyRequests });
      expectClose(drawn.images, expected);
      expect(site.asked.filter((path) => /bytes=[1-9]\d*-$/.test(path))).toHaveLength(1);

      const list = Object.fromEntries(
        readdirSync(tiny.folder, { recursive: true, encoding: "utf8" })
          .filter((path) => statSync(join(tiny.folder, path)).isFile())
          .map((path) => {
            const content = readFileSync(join(tiny.folder, path));
            return [path, { size: content.length, sha256: createHash("sha256").update(content).digest("hex") }];
          }),
      );
      site.fault = ({ url }, response) => {
        if (url?.endsWith("femo-files.json")) {
          response.writeHead(200, { "content-type": "application/json" });
          response.end(JSON.stringify({ files: list }));
          return true;
        }
        if (!weights.test(url ?? "")) return false;
        const other = Buffer.from(bytes);
        other[other.length - 1] = (other[other.length - 1] as number) ^ 1;
        response.writeHead(200, { "content-length": other.length });
        response.end(other);
        return true;
      };
      const fresh = await openPage(browser, site);
      expect(await failure(fresh, "/models/tiny/")).toMatch(
        /^E_FILE .*safetensors: expected \d+ bytes with the hash .*2 times/,
      );
    } finally {
      await site.close();
    }
  });

  test("a folder and a file that the user picks open without a server", async () => {
    const page = await openPage(browser, plain);
    await page.setContent('<input id="folder" type="file" webkitdirectory>');
    await page.setInputFiles("#folder", tiny.folder);
    const pixels = await page.evaluate(async (request) => {
      const { files } = document.querySelector("input") as HTMLInputElement;
      const pipeline = await femo.DiffusionPipeline.fromPretrained([...(files ?? [])], {
        device: "wasm",
        dtype: "int8",
      });
      await pipeline.close();
      const whole = await femo.DiffusionPipeline.fromPretrained([...(files ?? [])], { device: "wasm" });
      const { images } = await whole.generate(request as GenerateOptions);
      return [...(images[0]?.data ?? [])];
    }, tinyRequests[0]);
    expectClose([pixels], expected.slice(0, 1));
  });

  test("a gated model on the Hub opens with a token, and says what is missing without one", async () => {
    const contents = Object.fromEntries(
      readdirSync(tiny.folder, { recursive: true, encoding: "utf8" }).flatMap((path) => {
        const file = join(tiny.folder, path);
        return statSync(file).isFile() ? [[path, readFileSync(file)]] : [];
      }),
    );
    const hub = await FakeHub.start("owner/tiny", contents);
    hub.intercept = ({ server, path, authorization }, response) => {
      const isShut = server === "hub" && path.includes("/resolve/") && authorization !== "Bearer hf_of-the-user";
      if (isShut) refuse(response, 401, "GatedRepo");
      return isShut;
    };
    const page = await openPage(browser, plain);
    await page.route("https://huggingface.co/**", async (route) => {
      const { pathname, search } = new URL(route.request().url());
      const { authorization } = route.request().headers();
      const answer = await fetch(hub.url + pathname + search, { headers: authorization ? { authorization } : {} });
      const headers = { ...Object.fromEntries(answer.headers), "access-control-allow-origin": "*" };
      await route.fulfill({ status: answer.status, headers, body: Buffer.from(await answer.arrayBuffer()) });
    });
    const drawn = await page.evaluate(async (request) => {
      const open = (token?: string) =>
        femo.DiffusionPipeline.fromPretrained("owner/tiny", { device: "wasm", ...(token && { token }) });
      const failed = async (token?: string) =>
        open(token).then(
          () => "opened",
          (error: Error) => `${error}`,
        );
      const refused = [await failed(), await failed("hf_other"), await failed("hf of two words")];
      const { images } = await (await open("hf_of-the-user")).generate(request as GenerateOptions);
      return { refused, pixels: [...(images[0]?.data ?? [])] };
    }, tinyRequests[0]);
    await hub.close();
    expectClose([drawn.pixels], expected.slice(0, 1));
    expect(drawn.refused[0]).toMatch(
      /accept its licence at https:\/\/huggingface.co\/owner\/tiny; then pass the token/,
    );
    expect(drawn.refused[1]).toContain("The token was sent: see that its account has access");
    expect(drawn.refused[2]).toContain("token: expected a token of the Hub");
  });

  test("in float16 WebAssembly draws nearly the same, and a GPU without it says so", async () => {
    const page = await openPage(browser, plain);
    const drawn = await page.evaluate(async (request) => {
      const open = (device: "wasm" | "webgpu") =>
        femo.DiffusionPipeline.fromPretrained("/models/tiny/", { device, dtype: "float16" });
      const pipeline = await open("wasm");
      const { images } = await pipeline.generate(request as GenerateOptions);
      const refused = await open("webgpu").catch((error: Error) => error.message);
      return { pixels: [...(images[0]?.data ?? [])], refused };
    }, tinyRequests[0]);
    const wanted = expected[0] as number[];
    expect(Math.max(...drawn.pixels.map((value, i) => Math.abs(value - (wanted[i] as number))))).toBeLessThanOrEqual(3);
    // The processor in place of a GPU has no half precision.
    expect(drawn.refused).toContain('does not compute in float16 (shader-f16): take "float32"');
  });

  test("what is no model, and devices that no browser has, are errors that say what to do", async () => {
    const page = await openPage(browser, plain);
    expect(await failure(page, "avatars-flux")).toMatch(/^E_FILE avatars-flux: expected the address of a model/);
    expect(await failure(page, "/models/none/")).toMatch(/^E_FILE \/models\/none\/: .*no model_index.json/);
    expect(await failure(page, "/models/tiny/", "cuda")).toMatch(
      /^E_OPTION device: no browser has "cuda": take "webgpu"/,
    );
  });
});
