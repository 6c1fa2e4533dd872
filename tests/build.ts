import { execFileSync } from "node:child_process";
import type { TestProject } from "vitest/node";

const build = (): void => {
  execFileSync("npm", ["run", "--silent", "build"], { stdio: "inherit", shell: process.platform === "win32" });
};

/** The engine's process, and the command, run from dist: it is made anew, so that no test runs an older one. */
export default function setup(project: TestProject): void {
  build();
  project.onTestsRerun(build);
}
