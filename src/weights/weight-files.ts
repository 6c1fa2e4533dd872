import { FemoError } from "../errors.js";
import type { FolderSource } from "./folder-source.js";
import { listSome, quote } from "./text.js";

/** diffusers' own models before those of transformers, safetensors before what `torch.save` writes. */
const WEIGHT_FILES = [
  ["diffusion_pytorch_model", "safetensors"],
  ["model", "safetensors"],
  ["diffusion_pytorch_model", "bin"],
  ["pytorch_model", "bin"],
] as const;

const VARIANT = /^[\w-]+$/;

/** Names of the weights: an index before a single file, as diffusers looks. The variant's place differs by version. */
function fileNames(variant: string | undefined): string[] {
  const infix = variant === undefined ? "" : `.${variant}`;
  return WEIGHT_FILES.flatMap(([stem, ending]) => [
    `${stem}.${ending}.index${infix}.json`,
    ...(variant === undefined ? [] : [`${stem}.${ending}${infix}.index.json`]),
    `${stem}${infix}.${ending}`,
  ]);
}

/** Where the weights of a component may be, the first choice first. */
export const weightPaths = (component: string, variant?: string): string[] =>
  fileNames(variant).map((name) => `${component}/${name}`);

/**
 * The weights of a component, a file or the index of several: those of the variant that is asked for; without one those
 * of no variant, or, if there are none, those of the only variant there is.
 * @throws FemoError E_OPTION if the variant is no name; E_FILE if there are no such weights
 */
export async function findWeights(folder: FolderSource, component: string, variant?: string): Promise<string> {
  checkVariant(variant);
  const paths = weightPaths(component, variant);
  const path = await firstThatExists(folder, paths);
  if (path !== undefined) return path;

  const variants = await variantsOf(folder, component);
  const [only] = variants;
  if (variant === undefined && only !== undefined && variants.length === 1) {
    return (await firstThatExists(folder, weightPaths(component, only))) as string; // it was just listed
  }
  const there = variants.map(quote).join(", ");
  const plain = variant !== undefined && (await firstThatExists(folder, weightPaths(component)));
  const advice = plain
    ? `They exist without the variant: leave it out${there && `, or pass one that is there: ${there}`}.`
    : there
      ? `There are variants: pass variant, one of ${there}.`
      : "Check that the download is complete; another revision or copy of the model may have them.";
  throw new FemoError(
    "E_FILE",
    `${folder.name}: found no weights of ${quote(component)}. ${advice} Looked for:${listSome(paths, paths.length)}`,
  );
}

/**
 * Which variant to take of each component of a pipeline: as in diffusers the one that is asked for, and of those that do
 * not have it none, as long as one has.
 * @throws FemoError E_OPTION if the variant is no name; E_FILE if no component has it
 */
export async function variantByComponent(
  folder: FolderSource,
  components: readonly string[],
  variant: string | undefined,
): Promise<(component: string) => string | undefined> {
  checkVariant(variant);
  if (variant === undefined || !folder.list) return () => variant;
  const having = new Set<string>();
  const others = new Set<string>();
  for (const component of components) {
    if (await firstThatExists(folder, weightPaths(component, variant))) having.add(component);
    for (const other of await variantsOf(folder, component)) others.add(quote(other));
  }
  if (having.size > 0) return (component) => (having.has(component) ? variant : undefined);
  const advice = others.size > 0 ? `There are ${[...others].join(", ")}.` : "There are no variants: leave it out.";
  throw new FemoError("E_FILE", `${folder.name}: no component has weights of the variant ${quote(variant)}. ${advice}`);
}

/** @throws FemoError E_OPTION unless it may be a part of a file's name */
function checkVariant(variant: string | undefined): void {
  if (variant === undefined || VARIANT.test(variant)) return;
  throw new FemoError(
    "E_OPTION",
    `variant: expected letters, digits, "-" and "_", such as "fp16"; found ${quote(variant)}.`,
  );
}

/** The variants of a component's weights, as far as that is known. */
async function variantsOf(folder: FolderSource, component: string): Promise<string[]> {
  const names = new Set(await folder.list?.(component));
  const parts = new Set([...names].flatMap((name) => name.split(".")));
  const isVariant = (part: string): boolean =>
    VARIANT.test(part) && !/-\d+-of-\d+$/.test(part) && fileNames(part).some((name) => names.has(name));
  return [...parts].filter(isVariant).sort();
}

/** The first of the paths at which there is a file. */
export async function firstThatExists(folder: FolderSource, paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if (await folder.exists(path)) return path;
  return undefined;
}
