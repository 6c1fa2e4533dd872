import { FemoError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import { isObject, parseJson } from "./json.js";
import { describeValue, formatDims, quote } from "./text.js";

/** A tensor as checkpoints have them. */
export type Tensor = ReturnType<Checkpoint["tensors"]>[number];

/**
 * What an adapter adds to one matrix W [out, in], or to a convolution, and its bias: alpha / r · up · down, and
 * alpha / r · bias.
 */
export interface LoraModule {
  /** The module as the file names it: what stands before `.lora_A.weight` or the like. */
  readonly path: string;
  /** [r, in], or of a convolution [r, in, height, width] */
  readonly down: Tensor;
  /** [out, r], or [out, r, 1, 1] */
  readonly up: Tensor;
  /** [out] */
  readonly bias?: Tensor;
  /** One number. */
  readonly alpha?: Tensor;
}

/** A file of adapters, as it is named; what the names mean is the model's business. */
export interface LoraFile {
  readonly modules: readonly LoraModule[];
  /** Tensors that are no part of an adapter. */
  readonly surplus: readonly string[];
  readonly config: LoraConfig | undefined;
}

/** What PEFT says of an adapter in the header of its file, as far as it scales it. Keys may start with the component's name. */
type LoraConfig = Readonly<Record<string, unknown>>;

/** PEFT and diffusers say A and B, kohya's scripts and XLabs down and up; both have had a word more in between. */
const MATRIX =
  /^(.+?)(?:\.lora(?:_linear_layer)?)?\.(?:(lora_A|lora_down|down)|lora_B|lora_up|up)(?:\.default)?\.(weight|bias)$/;
const ALPHA = /^(.+)\.alpha$/;

/** Adapters of other kinds, by the names of their tensors. */
const OTHER_KINDS: readonly (readonly [name: RegExp, kind: string])[] = [
  [/\.dora_scale$|\blora_magnitude_vector\b/, "DoRA, which also scales the columns of weights"],
  [/\.lokr_/, "LoKr, products of another kind"],
  [/\.hada_/, "LoHa, products of another kind"],
  [/\.lora_mid\.weight$/, "LoCon in three factors"],
  [/\.b?oft_(blocks|diag|[RS])\b/, "OFT, which turns weights"],
  [/\.(a|b|bm)[12]\.weight$/, "GLoRA, which also multiplies weights"],
  [/\.on_input$|\.ia3_l\b/, "(IA)³, which scales activations"],
  [/\.(diff|diff_b|w_norm|b_norm|set_weight)$/, "whole differences of weights beside those of low rank"],
  [/\.(query|key)_norm\.scale$/, "a control LoRA, which gives the model another input"],
];

/**
 * The adapters in a file, by the modules as it names them.
 * @throws FemoError E_WEIGHT if the file holds adapters of another kind than LoRA, or half of one; E_FILE if its header
 *   cannot be read
 */
export async function readLora(checkpoint: Checkpoint): Promise<LoraFile> {
  refuseOtherKinds(checkpoint);
  const parts = new Map<string, { -readonly [part in keyof LoraModule]?: LoraModule[part] }>();
  const surplus: string[] = [];
  for (const tensor of checkpoint.tensors()) {
    const [, path, part] = partOf(tensor.name) ?? [];
    if (path === undefined || part === undefined) {
      surplus.push(tensor.name);
      continue;
    }
    const module = parts.get(path) ?? {};
    parts.set(path, module);
    const twin = module[part];
    if (twin) fail(checkpoint, tensor.name, `it is there again as ${quote(twin.name)}. Keep one of them.`);
    module[part] = tensor;
  }
  const modules: LoraModule[] = [];
  for (const [path, { down, up, bias, alpha }] of parts) {
    if (down && up) {
      modules.push({ path, down, up, ...(bias && { bias }), ...(alpha && { alpha }) });
      continue;
    }
    const half = down ?? up ?? bias;
    if (half) fail(checkpoint, half.name, `its ${down ? "up" : "down"} matrix is missing. Download the file again.`);
    if (alpha) surplus.push(alpha.name);
  }
  return { modules, surplus, config: readConfig(checkpoint.name, await checkpoint.metadata()) };
}

function partOf(name: string): [name: string, path: string, part: "down" | "up" | "bias" | "alpha"] | undefined {
  const alpha = ALPHA.exec(name)?.[1];
  if (alpha !== undefined) return [name, alpha, "alpha"];
  const [, path, down, kind] = MATRIX.exec(name) ?? [];
  if (path === undefined) return undefined;
  if (kind === "bias") return down === undefined ? [name, path, "bias"] : undefined;
  return [name, path, down === undefined ? "up" : "down"];
}

function refuseOtherKinds(checkpoint: Checkpoint): void {
  for (const name of checkpoint.names()) {
    const kind = OTHER_KINDS.find(([pattern]) => pattern.test(name))?.[1];
    if (kind !== undefined) {
      fail(
        checkpoint,
        name,
        `the file holds ${kind}: expected LoRA alone. Merge it into the model with the tool that made it.`,
      );
    }
  }
}

/** The entry in which diffusers keeps PEFT's config. */
const CONFIG = "lora_adapter_metadata";

function readConfig(file: string, metadata: ReadonlyMap<string, string>): LoraConfig | undefined {
  const text = metadata.get(CONFIG);
  if (text === undefined) return undefined;
  const advice = "Save the adapter again, or without this entry.";
  const config = parseJson(text, `${file}, header, ${CONFIG}`, "E_FILE", advice);
  if (isObject(config)) return config;
  throw new FemoError(
    "E_FILE",
    `${file}, header, ${CONFIG}: expected an object, found ${describeValue(config)}. ${advice}`,
  );
}

/**
 * What the product up · down of a module is multiplied by, beside the adapter's weight: alpha / r, with alpha a tensor of
 * the module, or else PEFT's in the header (`alpha_pattern`, `lora_alpha`; over √r with `use_rslora`), or else r. An alpha
 * of 0 in a tensor means r too, as kohya's scripts have it.
 * @param component the part of the pipeline with the module, such as "transformer", as the header's keys start
 * @param modules the model's names of it
 * @throws FemoError E_WEIGHT if alpha is no finite number
 */
export async function loraScale(
  checkpoint: Checkpoint,
  { alpha, down }: LoraModule,
  config: LoraConfig | undefined,
  component: string,
  modules: readonly string[],
): Promise<number> {
  const rank = down.shape[0] as number;
  if (alpha) {
    const value = await readNumber(checkpoint, alpha);
    return value === 0 ? 1 : value / rank;
  }
  if (config === undefined) return 1;
  const entry = (key: string): unknown => config[`${component}.${key}`] ?? config[key];
  const refuse = (key: string, expected: string): never => {
    const found = describeValue(entry(key));
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}, header, ${CONFIG}, ${key}: expected ${expected}, found ${found}. Save the adapter again.`,
    );
  };
  if (entry("use_dora") === true) refuse("use_dora", "false, as DoRA is not LoRA alone");
  const patterns = entry("alpha_pattern") ?? {};
  if (!isObject(patterns) || !Object.keys(patterns).every((pattern) => /^\^?[\w.\\]+$/.test(pattern))) {
    return refuse("alpha_pattern", "an object of numbers by names of modules");
  }
  const key = Object.keys(patterns).find((pattern) => modules.some((module) => matches(module, pattern)));
  const value = (key === undefined ? undefined : patterns[key]) ?? entry("lora_alpha") ?? rank;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    return refuse(key === undefined ? "lora_alpha" : "alpha_pattern", "finite numbers");
  }
  return value / (entry("use_rslora") === true ? Math.sqrt(rank) : rank);
}

/** Whether PEFT's pattern, a module's name or the end of one, means a module. A pattern is no regular expression here. */
const matches = (module: string, pattern: string): boolean => {
  const name = pattern.replace(/^\^/, "").replaceAll("\\.", ".");
  return module === name || (!pattern.startsWith("^") && module.endsWith(`.${name}`));
};

/** A tensor of one number. */
async function readNumber(checkpoint: Checkpoint, { name, dtype, shape }: Tensor): Promise<number> {
  if (shape.some((dim) => dim !== 1)) fail(checkpoint, name, `expected one number, found ${formatDims(shape)}.`);
  let value: number | undefined;
  if (/^int(8|16|32|64)$/.test(dtype)) {
    const bytes = await checkpoint.readBytes(name);
    const filled = new Uint8Array(8).fill((bytes.at(-1) as number) >= 0x80 ? 0xff : 0); // extends the sign
    filled.set(bytes);
    value = Number(new DataView(filled.buffer).getBigInt64(0, true));
  } else [value] = await checkpoint.readTensor(name);
  if (value === undefined || !Number.isFinite(value)) {
    return fail(checkpoint, name, `expected a finite number, found ${value}. The file is damaged: download it again.`);
  }
  return value;
}

function fail(checkpoint: Checkpoint, tensor: string, problem: string): never {
  throw new FemoError("E_WEIGHT", `${checkpoint.name}: tensor ${quote(tensor)}: ${problem}`);
}
