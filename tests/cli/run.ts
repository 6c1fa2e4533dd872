import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";
import { tinyPipeline } from "../tiny-pipeline.js";

export const main = resolve("dist/cli/main.js");
export const folder = (): string => mkdtempSync(join(tmpdir(), "femo-cli-"));

/** `--model` and the folder of a tiny model, which has a class "micah" too. It goes when the tests of the file are over. */
export async function tinyModel(): Promise<readonly [string, string]> {
  const { folder, remove } = await tinyPipeline();
  afterAll(remove);
  return ["--model", folder];
}

/** Shows its progress, as on a terminal. */
const onTerminal = ["--import", "data:text/javascript,process.stderr.isTTY = true"];

interface RunOptions {
  readonly cwd?: string;
  /** Beside the variables of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Told of the process once it has begun, to disturb it. */
  readonly begun?: (child: ChildProcess) => void;
  /** Interrupts it, as Ctrl-C does, once it has said this of its progress. */
  readonly interruptAt?: string;
}

/** Runs the command, without a terminal. */
export function femo(args: readonly string[], { cwd = folder(), env, begun, interruptAt }: RunOptions = {}) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((done) => {
    const flags = interruptAt === undefined ? [] : onTerminal;
    const child = spawn(process.execPath, [...flags, main, ...args], { cwd, env: { ...process.env, ...env } });
    let interrupted = false;
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data) => {
      stdout += data;
    });
    child.stderr.on("data", (data) => {
      stderr += data;
      if (interrupted || interruptAt === undefined || !stderr.includes(interruptAt)) return;
      interrupted = child.kill("SIGINT");
    });
    begun?.(child);
    child.on("close", (code) => done({ code, stdout, stderr }));
  });
}
