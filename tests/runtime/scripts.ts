import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

export interface Ending {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a module's text in a process of its own, from the root of the package. */
export function runScript(
  script: string,
  { env = process.env, during = () => {} }: { env?: NodeJS.ProcessEnv; during?: (child: ChildProcess) => void } = {},
): Promise<Ending> {
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { cwd: root, env });
  const texts = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].on("data", (chunk) => {
      texts[stream] += chunk;
    });
  }
  during(child);
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, ...texts })));
}

/** Linux: the processes that a process has started. */
export const childrenOf = (pid: number | undefined): number[] =>
  (readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").match(/\d+/g) ?? []).map(Number);
