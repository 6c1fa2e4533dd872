import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodePng } from "../../src/index.js";
import { inChromium, launch, noBrowser } from "./browser.js";
import { type Site, serve } from "./site.js";

const settings = { prompt: "a lorelei portrait, red hair", seed: 5, steps: 8, interval: 2, warmup: 2, method: "femo" };

describe.skipIf(noBrowser)(inChromium("the playground"), () => {
  let browser: Browser;
  let site: Site;
  let page: Page;
  const folder = mkdtempSync(join(tmpdir(), "femo-playground-"));
  const errors: string[] = [];
  beforeAll(async () => {
    await build({ configFile: "playground/vite.config.ts", logLevel: "error", build: { outDir: folder } });
    site = await serve([["", folder]], { isolated: true });
    browser = await launch();
    page = await browser.newPage();
    page.on("pageerror", ({ message }) => errors.push(message));
    await page.goto(`${site.url}#${encodeURIComponent(JSON.stringify(settings))}`);
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  const text = async (id: string): Promise<string> => (await page.textContent(`#${id}`)) ?? "";
  const isIdle = () => page.waitForFunction(() => !document.querySelector<HTMLButtonElement>("#draw")?.disabled);

  test("draws what a link says, from the keyboard, and says what it cost", async () => {
    expect(await page.inputValue("#prompt")).toBe(settings.prompt);
    await page.focus("#prompt");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll("#strip .forecast").length > 0);
    await isIdle();
    expect(await text("error")).toBe("");
    expect(await text("device-text")).toMatch(/^WebAssembly, \d threads$|^GPU/);
    expect(await text("stat-steps")).toMatch(/^\d of 8$/);
    expect(await text("stat-psnr")).toMatch(/dB|the same/);
    expect(await page.locator("#strip .full").count()).toBe(Number((await text("stat-steps"))[0]));
    expect(await page.locator("#trajectory .mark.full").count()).toBeGreaterThan(1);
    expect(await page.locator("#errors .mark").count()).toBeGreaterThan(3);
  });

  test("shows the picture without a cache beside it", async () => {
    await page.click('button[data-view="compare"]');
    await page.focus("#split");
    for (let i = 0; i < 10; i++) await page.keyboard.press("ArrowRight");
    expect(
      await page.evaluate(() => document.querySelector<HTMLElement>("#views")?.style.getPropertyValue("--split")),
    ).toBe("60%");
    await page.click('button[data-view="difference"]');
    expect(await page.getAttribute("#views", "data-view")).toBe("difference");
  });

  test("offers the solvers that are fitted to the model, and compares them with all steps", async () => {
    await page.selectOption("#method", "calibrated");
    expect(await page.locator("#full-steps option").allTextContents()).toEqual(["5", "7", "9", "11"]);
    await page.selectOption("#full-steps", "5");
    await page.focus("#prompt");
    await page.keyboard.press("Enter");
    await isIdle();
    expect(await text("error")).toBe("");
    expect(await text("stat-steps")).toBe("5 of 8");
    expect(await text("stat-flops")).toMatch(/^3\d %, 1\.6×$/);
    expect(await text("stat-psnr")).toMatch(/dB/);
    expect(await page.locator("#strip .full").count()).toBe(5);
    expect(await page.locator("#trajectory .mark.full").count()).toBe(5);
    await page.selectOption("#method", "femo");
  });

  test("a picture that is saved has its settings back when it is opened", async () => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
    const path = await download.path();
    expect(decodePng(readFileSync(path)).text.parameters).toMatch(
      /^a lorelei portrait, red hair\nSteps: 8, Sampler: .*Seed: 5/,
    );
    await page.fill("#prompt", "something else");
    await page.fill("#seed", "99");
    await page.setInputFiles("#png", { name: "a.png", mimeType: "image/png", buffer: readFileSync(path) });
    await page.waitForFunction(() => document.querySelector<HTMLInputElement>("#seed")?.value === "5");
    expect(await page.inputValue("#prompt")).toBe(settings.prompt);
    expect(await page.locator("#runs li").count()).toBe(2);
    await page.setInputFiles("#png", { name: "b.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
    await page.waitForFunction(() => /PNG/.test(document.querySelector("#error")?.textContent ?? ""));
  });

  test("a drawing that is stopped leaves the page ready for another", async () => {
    await page.fill("#seed", "6");
    await page.fill("#prompt", "a micah portrait");
    await page.click("#draw");
    await page.waitForFunction(() => document.querySelectorAll("#strip .full").length > 0);
    await page.click("#stop");
    await isIdle();
    expect(await text("phase")).toBe("Stopped.");
    // On a fast machine the cached picture is there already, and the one beside it was stopped.
    const runs = page.locator("#runs li");
    const before = await runs.count();
    await page.uncheck("#beside");
    await page.click("#draw");
    await page.waitForFunction(() => /^Drawn in/.test(document.querySelector("#phase")?.textContent ?? ""));
    expect(await runs.count()).toBe(before + 1);
  });

  test("another model that is not there is an error, and the own one draws again", async () => {
    await page.click("#device");
    await page.fill("#model-url", "./models/none/");
    await page.click("#open-model");
    await page.waitForFunction(() => /model_index/.test(document.querySelector("#error")?.textContent ?? ""));
    await page.click("#device");
    await page.fill("#model-url", "");
    await page.click("#open-model");
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#device")?.dataset.state === "ready");
  });

  test.each(["light", "dark"] as const)("axe finds nothing to complain of, in the %s", async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
    const found = await page.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: typeof import("axe-core") };
      const { violations } = await axe.run();
      return violations.map(({ id, nodes }) => [id, ...nodes.map(({ target }) => target.join(" "))]);
    });
    expect(found).toEqual([]);
  });

  test("fits a phone, without scrolling to the side", async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    expect(errors).toEqual([]);
  });
});
