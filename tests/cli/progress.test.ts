import { PassThrough } from "node:stream";
import { expect, onTestFinished, test, vi } from "vitest";
import { durationText } from "../../src/cli/duration.js";
import { progressLine } from "../../src/cli/progress.js";
import { femo, tinyModel } from "./run.js";

const written = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString() ?? "";

test("on a terminal one line is written again and cleared, no wider than it is", () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 20 });
  const progress = progressLine(false, { stream });
  progress.show("drawing something with a long name", 0.25);
  progress.clear();
  const [, line, cleared] = written(stream).split("\r");
  expect(line).toBe("25 %  drawing somet\x1b[K");
  expect(cleared).toBe("\x1b[K");
});

test("elsewhere it is whole lines, no oftener than asked", () => {
  const stream = new PassThrough();
  const often = progressLine(false, { stream, everyMs: 0 });
  often.show("step 1 of 4", 0.25);
  often.show("step 2 of 4", 0.5);
  often.clear();
  expect(written(stream)).toMatch(/^25 % {2}step 1 of 4\n50 % {2}step 2 of 4.*\n$/);
  const seldom = progressLine(false, { stream, everyMs: 1e9 });
  seldom.show("step 1 of 4", 0.25);
  seldom.clear();
  expect(written(stream)).toBe("");
});

test("what is left is of the work at hand: less done than before is another one", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const stream = new PassThrough();
  const progress = progressLine(false, { stream, everyMs: 0 });
  progress.show("planning", 0.9);
  vi.advanceTimersByTime(60_000);
  progress.show("drawing", 0);
  vi.advanceTimersByTime(60_000);
  progress.show("drawing", 0.1);
  expect(written(stream).split("\n")[2]).toBe("10 %  drawing  9 min left");
});

test("what is left is told by how fast it went of late", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const stream = new PassThrough();
  const progress = progressLine(false, { stream, everyMs: 0 });
  progress.show("opening", 0);
  vi.advanceTimersByTime(100_000);
  for (let done = 1; done <= 90; done++) {
    progress.show("drawing", done / 100);
    vi.advanceTimersByTime(10_000);
  }
  const lines = written(stream).trim().split("\n");
  expect(lines[1]).toBe("1 %  drawing  2.8 h left");
  expect(lines[20]).toBe("20 %  drawing  14 min left"); // as it goes since a while: 10 s for each percent
  expect(lines[90]).toBe("90 %  drawing  2 min left");
});

test.each([
  [0, "0 s"],
  [59, "59 s"],
  [59.5, "1 min"],
  [61, "2 min"],
  [3540, "59 min"],
  [3599, "1.0 h"],
  [6120, "1.7 h"],
  [172_800, "2 days"],
  [430_000, "5 days"],
])("%d seconds are %s", (seconds, text) => {
  expect(durationText(seconds)).toBe(text);
});

test("quiet is silent", () => {
  const stream = new PassThrough();
  const quiet = progressLine(true, { stream, everyMs: 0 });
  quiet.show("step 1 of 4", 0.25);
  quiet.clear();
  expect(written(stream)).toBe("");
});

const few = ["compare", ...(await tinyModel()), "--steps", "3", "--interval", "2", "--cache", "fora", "--threads", "1"];

test("a comparison tells each result as a line; its numbers are the user's", async () => {
  const { code, stderr } = await femo([...few, "--batch-size", "9", "--classes", "0,1"]);
  expect(code).toBe(0);
  const lines = stderr.trim().split("\n").slice(0, 4);
  expect(lines.map((line) => /^round 1 of 1: (.*), 2 images in \d+\.\d\d s/.exec(line)?.[1])).toEqual([
    "No cache",
    "FORA",
    "2 DDIM steps",
    "2 DPM-Solver++ steps",
  ]);
}, 120_000);

test("a comparison says what it chose and why", async () => {
  const { code, stderr } = await femo([...few, "--classes", "0"]);
  expect(code).toBe(0);
  expect(stderr.split("\n")[0]).toMatch(
    /^A full step takes \d+ ms for one image here: drawing 1 image 1 at a time, which takes about \d+ s\. --batch-size chooses otherwise/,
  );
}, 120_000);

test("a quiet comparison says nothing", async () => {
  const quiet = await femo([...few, "--classes", "0", "--quiet"]);
  expect(quiet).toEqual({ code: 0, stdout: "", stderr: "" });
}, 120_000);
