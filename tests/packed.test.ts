import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const run = promisify(execFile);
let project: string;
const installed = (name: string): string => join(project, "node_modules", name);

/** Packs a package and puts it where an install would. */
async function install(name: string, folder: string): Promise<number> {
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", project], { cwd: folder });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  mkdirSync(installed(name), { recursive: true });
  await run("tar", ["-xzf", join(project, filename), "--strip-components=1", "-C", installed(name)]);
  return statSync(join(project, filename)).size;
}

const draw = () => run(process.execPath, ["draw.mjs"], { cwd: project });

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "femo-packed-"));
  const script = `import { DiffusionPipeline } from "femo";
    const pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
    const { images } = await pipeline.generate({ classLabels: [0], numInferenceSteps: 1 });
    console.log(pipeline.name, images[0].width);
    await pipeline.close();`;
  writeFileSync(join(project, "draw.mjs"), script);
});
afterAll(() => rmSync(project, { recursive: true }));

test("what is published as femo is code, below 1 MB, and says which package has the models", async () => {
  expect(await install("femo", ".")).toBeLessThan(1e6);
  for (const name of Object.keys(JSON.parse(readFileSync("package.json", "utf8")).dependencies)) {
    mkdirSync(dirname(installed(name)), { recursive: true });
    symlinkSync(resolve("node_modules", name), installed(name));
  }
  await expect(draw()).rejects.toThrow("npm install femo-models");
});

test("it has every type that its entry points lead to", () => {
  const { exports } = JSON.parse(readFileSync(join(installed("femo"), "package.json"), "utf8")) as {
    exports: Record<string, { types?: string }>;
  };
  const paths = Object.values(exports).flatMap(({ types }) => (types ? [join(installed("femo"), types)] : []));
  expect(paths).toHaveLength(3);
  const seen = new Set(paths);
  for (const path of seen) {
    for (const [, name] of readFileSync(path, "utf8").matchAll(/(?:from|import\() ?"(\.[^"]+)\.js"/g)) {
      seen.add(join(dirname(path), `${name}.d.ts`));
    }
  }
  expect(seen.size).toBeGreaterThan(100);
});

test("with the package of the models it draws by their names", async () => {
  await install("femo-models", "models");
  expect((await draw()).stdout).toBe("avatars-dit 64\n");
});
