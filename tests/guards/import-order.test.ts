import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";

/** The folders of src, each of which imports from those before it and from none behind it. */
const ORDER = [
  "weights",
  "tokenizers",
  "graph",
  "tracing",
  "runtime",
  "platform",
  "models",
  "samplers",
  "methods",
  "denoising",
  "images",
  "metrics",
  "pipelines",
  "studies",
  "cli",
];
/** Beside the folders, open to all of them. */
const FOR_ALL = ["errors.js", "schema-issues.js"];
const IMPORT = /(?:from|import)\s*\(?\s*"([^"]+)"/g;

const files = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => ({
    path,
    imports: [...readFileSync(join("src", path), "utf8").matchAll(IMPORT)].map(([, specifier]) => specifier as string),
  }));
const folderOf = (path: string): string | undefined => (path.includes("/") ? path.split("/")[0] : undefined);
const targetOf = (path: string, specifier: string): string =>
  specifier === "#platform" ? "platform/platform.js" : relative("src", join("src", dirname(path), specifier));

test("every folder of src has its place", () => {
  const found = new Set(files.flatMap(({ path }) => folderOf(path) ?? []));
  expect([...found].sort()).toEqual([...ORDER].sort());
});

test.each(ORDER)("%s imports from folders before it only", (folder) => {
  const later = new Set(ORDER.slice(ORDER.indexOf(folder) + 1));
  const wrong = files
    .filter(({ path }) => folderOf(path) === folder)
    .flatMap(({ path, imports }) =>
      imports
        .filter((specifier) => specifier.startsWith(".") || specifier === "#platform")
        .filter((specifier) => later.has(folderOf(targetOf(path, specifier)) ?? "cli"))
        .filter((specifier) => !FOR_ALL.includes(targetOf(path, specifier)))
        .map((specifier) => `${path}: ${specifier}`),
    );
  expect(wrong).toEqual([]);
});

/** What may know that it runs in Node. */
const NODE = /^(platform\/node|cli)\//;

test("the core imports neither node: modules nor what is Node's alone", () => {
  const wrong = files
    .filter(({ path }) => !NODE.test(path))
    .flatMap(({ path, imports }) =>
      imports
        .filter(
          (specifier) => specifier.startsWith("node:") || /platform\/node|onnxruntime-node|undici/.test(specifier),
        )
        .map((specifier) => `${path}: ${specifier}`),
    );
  expect(wrong).toEqual([]);
});

/** What may know that it runs in a page. */
const WEB = /^platform\/web\//;

test("nor what is a browser's alone", () => {
  const wrong = files
    .filter(({ path }) => !WEB.test(path))
    .flatMap(({ path, imports }) =>
      imports
        .filter((specifier) => /platform\/web|onnxruntime-web|@noble/.test(specifier))
        .map((specifier) => `${path}: ${specifier}`),
    );
  expect(wrong).toEqual([]);
});

test("and names no globals of Node or of a page", () => {
  const globals = /(?<![.\w"'`-])(process|Buffer|__dirname|window|document|navigator|localStorage)\s*[.[(]/;
  const wrong = files
    .filter(({ path }) => !NODE.test(path) && !WEB.test(path) && !/report-script\.ts$/.test(path)) // which are pages' scripts
    .filter(({ path }) => {
      const code = readFileSync(join("src", path), "utf8").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
      return globals.test(code);
    })
    .map(({ path }) => path);
  expect(wrong).toEqual([]);
});

test("no file imports itself by way of others", () => {
  const next = new Map(
    files.map(({ path, imports }) => [
      path,
      imports.filter((s) => s.startsWith(".")).map((s) => targetOf(path, s).replace(/\.js$/, ".ts")),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) circles.push([...trail.slice(trail.indexOf(path)), path].join(" -> "));
    if (done.has(path) || trail.includes(path)) return;
    for (const target of next.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const { path } of files) visit(path, []);
  expect(circles).toEqual([]);
});
