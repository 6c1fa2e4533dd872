import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

const build = (): void => {
  execFileSync("npm", ["run", "--silent", "build"], { stdio: "inherit", shell: process.platform === "win32" });
};

/**
 * The engine's process, and the command, run from dist: it is made anew, so that no test runs an older one. What tests leave in
 * the folder of temporary files goes with the run.
 */
export default function setup(project: TestProject): () => void {
  build();
  project.onTestsRerun(build);
  const temporary = mkdtempSync(join(tmpdir(), "femo-tests-"));
  for (const name of ["TMPDIR", "TEMP", "TMP"]) process.env[name] = temporary;
  return () => rmSync(temporary, { recursive: true, force: true });
}
