import { FemoError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { DerivedTensor } from "./derived.js";
import { type LoraModule, loraScale, readLora, type Tensor } from "./lora-file.js";
import { addLowRank, type LowRank } from "./low-rank.js";
import { filesOf, recipeOf } from "./tensors.js";
import { formatDims, listSome, quote } from "./text.js";

/** A LoRA file to be merged. */
export interface LoraAdapter {
  readonly checkpoint: Checkpoint;
  /** How much of it: 1 is what it was trained for, 0 nothing, negative its opposite. */
  readonly weight: number;
}

/** What an adapter's module is in a pipeline. */
export interface LoraTarget<Component extends string = string> {
  /** The part of the pipeline, as diffusers names it: "transformer", "text_encoder". */
  readonly component: Component;
  /** The model's modules whose rows the file keeps in one, in their order; mostly one. */
  readonly modules: readonly string[];
  /** True if the file has the two halves of the rows the other way round. */
  readonly swapped?: boolean;
  /** What users should know of such modules. */
  readonly remark?: string;
  /** What it may be if its shape is wrong. */
  readonly advice?: string;
}

export interface MergedLora<Component extends string = string> {
  /** The tensors that change, by component; all others stay as they are in the bases. */
  readonly derived: ReadonlyMap<Component, readonly DerivedTensor[]>;
  /** For the user: what of the files was not merged, or otherwise than elsewhere. */
  readonly notes: readonly string[];
}

type Bases<Component extends string> = Readonly<Partial<Record<Component, Checkpoint>>>;

/** A module's part in one tensor of a base. */
interface Contribution {
  readonly adapter: Checkpoint;
  readonly module: LoraModule;
  /** Weight times alpha / r. */
  readonly scale: number;
  /** Rows of up, or of the bias, that are this tensor's. */
  readonly firstRow: number;
  readonly swapped: boolean;
}

interface Change {
  readonly base: Checkpoint;
  readonly tensor: Tensor;
  readonly contributions: Contribution[];
}

/** No product gains from more ranks than its smaller side; one trained in four parts may have them four times. */
const MAX_RANKS = 4;

/**
 * Weights with LoRA merged in: W + Σ weight · alpha / r · up · down, the sum over all adapters; for biases likewise, with
 * the up matrix's bias. A convolution's down has the pixels of its kernel, and counts as a matrix with all of them in a row.
 * The results are float32 whatever the base is, so that nothing of a small change is lost by rounding before they are
 * quantised; of a bfloat16 base they take twice the room where they are kept. Products and sums are in float64, rounded
 * once. All names and shapes are checked here, bytes of matrices are read by `make`. An adapter of weight 0 changes nothing:
 * its tensors are the base's.
 * @param bases checkpoints by component; what an adapter has for another component is not merged, and noted
 * @param targetOf the meaning of a module's name in a file, if it has one
 * @throws FemoError E_OPTION if a weight is not finite; E_WEIGHT if a file is no LoRA, one of another kind, has shapes that
 *   do not fit, or nothing for this model; E_FILE if a file cannot be read
 */
export async function mergeLora<Component extends string>(
  bases: Bases<Component>,
  adapters: readonly LoraAdapter[],
  targetOf: (path: string) => LoraTarget<Component> | undefined,
): Promise<MergedLora<Component>> {
  const changes = new Map<Component, Map<string, Change>>();
  const notes: string[] = [];
  for (const adapter of adapters) notes.push(...(await addAdapter(changes, bases, adapter, targetOf)));
  const derived = Array.from(
    changes,
    ([component, ofComponent]) => [component, Array.from(ofComponent.values(), deriveMerged)] as const,
  );
  return { derived: new Map(derived), notes };
}

async function addAdapter<Component extends string>(
  changes: Map<Component, Map<string, Change>>,
  bases: Bases<Component>,
  { checkpoint, weight }: LoraAdapter,
  targetOf: (path: string) => LoraTarget<Component> | undefined,
): Promise<string[]> {
  if (!Number.isFinite(weight)) {
    throw new FemoError("E_OPTION", `${checkpoint.name}: weight: expected a finite number such as 1, found ${weight}.`);
  }
  const { modules, surplus, config } = await readLora(checkpoint);
  const notes = new Groups();
  const placed = modules.flatMap((module) => {
    const target = targetOf(module.path);
    const base = target && bases[target.component];
    const note = remarkOn(target, base);
    if (note !== undefined) notes.add(note, module.path);
    return target && base && note !== NO_PLACE ? [{ module, target, base }] : [];
  });
  for (const name of surplus) notes.add(NO_PLACE, name);
  if (notes.count(NO_PLACE) === modules.length + surplus.length) {
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: nothing in it is a LoRA for this model. Is it one, and for another model? It has:` +
        listSome(checkpoint.names().map(quote)),
    );
  }
  refuseTwins(checkpoint, placed);
  for (const { module, target, base } of placed) {
    checkShapes(checkpoint, module, target, base);
    const scale = weight * (await loraScale(checkpoint, module, config, target.component, target.modules));
    if (weight === 0) continue;
    const ofComponent = changes.get(target.component) ?? new Map<string, Change>();
    changes.set(target.component, ofComponent);
    addModule(ofComponent, base, target, { adapter: checkpoint, module, scale });
  }
  return notes.describe(checkpoint.name);
}

const NO_PLACE = "have no place in the model and were not merged";

/** What users should know of a module that belongs there; `NO_PLACE` if it belongs nowhere. */
function remarkOn(target: LoraTarget | undefined, base: Checkpoint | undefined): string | undefined {
  if (!target) return NO_PLACE;
  if (!base) return `are for ${quote(target.component)} and were not merged`;
  return target.modules.every((name) => base.get(`${name}.weight`)) ? target.remark : NO_PLACE;
}

/** Names by what is said of them. */
class Groups {
  readonly #names = new Map<string, string[]>();

  add(what: string, name: string): void {
    const names = this.#names.get(what) ?? [];
    this.#names.set(what, names);
    names.push(name);
  }

  count(what: string): number {
    return this.#names.get(what)?.length ?? 0;
  }

  describe(file: string): string[] {
    return Array.from(this.#names, ([what, names]) => {
      return `${file}: ${names.length} of its entries ${what}:${listSome(names.map(quote))}`;
    });
  }
}

/** @throws FemoError E_WEIGHT if two names of a file mean the same weights, which would then change twice */
function refuseTwins(
  checkpoint: Checkpoint,
  placed: readonly { readonly module: LoraModule; readonly target: LoraTarget }[],
): void {
  const pathOf = new Map<string, string>();
  for (const { module, target } of placed) {
    for (const name of target.modules) {
      const key = `${target.component} ${name}`;
      const twin = pathOf.get(key);
      if (twin !== undefined) {
        fail(checkpoint, module.up, `${quote(twin)} is for the same weights. Keep one of them in the file.`);
      }
      pathOf.set(key, module.path);
    }
  }
}

/** Gives each of the target's tensors its rows of a module. */
function addModule(
  changes: Map<string, Change>,
  base: Checkpoint,
  { modules, swapped = false }: LoraTarget,
  part: Pick<Contribution, "adapter" | "module" | "scale">,
): void {
  let firstRow = 0;
  for (const name of modules) {
    for (const kind of part.module.bias ? ["weight", "bias"] : ["weight"]) {
      const tensor = base.get(`${name}.${kind}`) as Tensor; // checked
      const change = changes.get(tensor.name) ?? { base, tensor, contributions: [] };
      changes.set(tensor.name, change);
      change.contributions.push({ ...part, firstRow, swapped });
    }
    firstRow += base.get(`${name}.weight`)?.shape[0] ?? 0;
  }
}

/** @throws FemoError E_WEIGHT unless up · down has the shape of the modules on top of each other, and the bias its rows */
function checkShapes(
  checkpoint: Checkpoint,
  { down, up, bias }: LoraModule,
  { modules, swapped, advice }: LoraTarget,
  base: Checkpoint,
): void {
  const inBase = modules.map((name) => base.get(`${name}.weight`)?.shape ?? []);
  const [[, ...row] = []] = inBase.map(withoutPixel);
  const rows = inBase.reduce((sum, [n = 0]) => sum + n, 0);
  const isOther = (shape: readonly number[]): boolean => withoutPixel(shape).slice(1).join() !== row.join();
  if (row.length === 0 || inBase.some(isOther) || (swapped && rows % 2 !== 0)) {
    fail(checkpoint, up, `the model has no matrices to merge it into, but ${inBase.map(formatDims).join(", ")}.`);
  }
  const expect = (tensor: Tensor, expected: readonly (number | string)[]): void => {
    const shape = expected.length > 1 ? withoutPixel(tensor.shape) : tensor.shape;
    if (shape.length === expected.length && shape.every((dim, i) => expected[i] === "r" || dim === expected[i])) return;
    const into = `for ${listNames(modules)} of the model`;
    const found = `found ${formatDims(tensor.shape)}`;
    const what = advice ?? "Is it a LoRA for another model, or for another size of it?";
    fail(checkpoint, tensor, `expected [${expected.join(", ")}] ${into}, ${found}. ${what}`);
  };
  expect(down, ["r", ...row]);
  const rank = down.shape[0] as number;
  const columns = columnsOf([rows, ...row]);
  if (rank < 1 || rank > MAX_RANKS * Math.min(rows, columns)) {
    fail(checkpoint, down, `its rank ${rank} is none that [${rows}, ${columns}] can have. The file is damaged.`);
  }
  expect(up, [rows, rank]);
  if (!bias) return;
  expect(bias, [rows]);
  const without = modules.find((name, i) => base.get(`${name}.bias`)?.shape.join() !== String(inBase[i]?.[0]));
  if (without !== undefined) fail(checkpoint, bias, `${quote(without)} of the model has no bias that it could change.`);
}

/** The shape of a convolution of one pixel as that of the matrix that it is; of any other weight its own. */
const withoutPixel = (shape: readonly number[]): readonly number[] =>
  shape.length === 4 && shape[2] === 1 && shape[3] === 1 ? shape.slice(0, 2) : shape;

/** Of a weight as a matrix, a row for each output: what a convolution takes of all its pixels is in one row. */
const columnsOf = (shape: readonly number[]): number => shape.slice(1).reduce((product, dim) => product * dim, 1);

const listNames = (names: readonly string[]): string => names.map(quote).join(", ");

/** Of what `addLowRank` gives: another number, other bytes. */
const VERSION = 1;

function deriveMerged({ base, tensor, contributions }: Change): DerivedTensor {
  const terms = contributions.map((contribution) => {
    const { scale, firstRow, swapped } = contribution;
    return [scale, firstRow, swapped, ...partsOf(contribution).map(recipeOf)];
  });
  const { name, shape } = tensor;
  return {
    name,
    dtype: "float32",
    shape,
    recipe: JSON.stringify(["lora", VERSION, recipeOf(tensor), ...terms]),
    files: [...new Set([tensor, ...contributions.flatMap(partsOf)].flatMap(filesOf))],
    make: () => merged(base, tensor, contributions),
  };
}

const partsOf = ({ module: { down, up, bias } }: Contribution): Tensor[] => [down, up, ...(bias ? [bias] : [])];

async function merged(
  base: Checkpoint,
  { name, shape }: Tensor,
  contributions: readonly Contribution[],
): Promise<Uint8Array> {
  const values = await base.readTensor(name);
  const products: LowRank[] = [];
  for (const contribution of contributions) products.push(await readProduct(contribution, shape));
  addLowRank(values, columnsOf(shape), products);
  if (!areFinite(values)) {
    const files = contributions.map(({ adapter }) => adapter.name).join(", ");
    throw new FemoError(
      "E_WEIGHT",
      `${base.name}: tensor ${quote(name)}: expected finite values with ${files} merged in, found others. ` +
        "Give the adapter less weight; if that does not help, the file is damaged: download it again.",
    );
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A bias is a product with the column 1. */
async function readProduct({ adapter, module, ...place }: Contribution, shape: readonly number[]): Promise<LowRank> {
  const { scale, firstRow, swapped } = place;
  const half = (shape[0] as number) / 2;
  const rowOf = (row: number): number => firstRow + (swapped ? (row < half ? row + half : row - half) : row);
  if (shape.length === 1) {
    const up = await readFinite(adapter, module.bias as Tensor);
    return { scale, up, down: Float32Array.of(1), rank: 1, rowOf };
  }
  const [up, down] = [await readFinite(adapter, module.up), await readFinite(adapter, module.down)];
  return { scale, up, down, rank: module.down.shape[0] as number, rowOf };
}

async function readFinite(checkpoint: Checkpoint, tensor: Tensor): Promise<Float32Array> {
  const values = await checkpoint.readTensor(tensor.name);
  if (areFinite(values)) return values;
  return fail(checkpoint, tensor, "expected finite values, found others. The file is damaged: download it again.");
}

function areFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] as number) * 0; // 0, but NaN for what is not finite
  return sum === 0;
}

function fail(checkpoint: Checkpoint, { name }: Tensor, problem: string): never {
  throw new FemoError("E_WEIGHT", `${checkpoint.name}: tensor ${quote(name)}: ${problem}`);
}
