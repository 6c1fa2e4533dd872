import { FemoError } from "../errors.js";
import type { RgbImage } from "../images/index.js";

/** The contents of an image's file. */
export interface ReadImage {
  /** Of them, in hexadecimal digits. */
  readonly digest: string;
  /** The image. @throws FemoError E_IMAGE if it is malformed */
  decode(): RgbImage;
}

/** An image of a set, read when it is needed. */
export interface ImageSource {
  /** Of the file. */
  readonly name: string;
  /** Reads the file. */
  read(): Promise<ReadImage>;
}

/** What was computed of images or pairs, by a digest of what they contain; rows of numbers of one length. */
export interface RowStore {
  /** What was kept under a digest. */
  get(digest: string): Promise<Float64Array | Float32Array | undefined>;
  /** Keeps rows. When this is done they are there, whatever happens to the process. */
  add(rows: readonly (readonly [digest: string, row: Float64Array | Float32Array])[]): Promise<void>;
}

/** How rows are computed. */
export interface RowsOptions {
  /** Images that are computed together. Default: 8. */
  readonly batchSize?: number | undefined;
  readonly store?: RowStore | undefined;
  readonly signal?: AbortSignal | undefined;
  /** After each batch, and for what was in the store. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What goes into a computation. */
export interface ReadTask<Input> {
  /** Of all of it, in hexadecimal digits. */
  readonly digest: string;
  /** It itself. */
  input(): Input;
}

/** Something to compute of. */
export interface Task<Input> {
  readonly name: string;
  /** Reads what goes in. */
  read(): Promise<ReadTask<Input>>;
}

/**
 * Rows of numbers for tasks, in their order, in batches; what the store has is not computed again. The next batch is read
 * while one is computed.
 * @throws what `compute` throws; FemoError E_IMAGE with the name of an image that is malformed; the signal's reason
 */
export async function rowsOfTasks<Input, Row extends Float32Array | Float64Array>(
  tasks: readonly Task<Input>[],
  compute: (batch: readonly Input[]) => Promise<readonly Row[]>,
  options: RowsOptions = {},
): Promise<Row[]> {
  const { batchSize = 8, store, signal, onProgress } = options;
  const rows: Row[] = [];
  let running: Promise<void> = Promise.resolve();
  let batch: { at: number; digest: string; input: Input }[] = [];
  let done = 0;
  const tell = (more: number): void => {
    done += more;
    onProgress?.(done, tasks.length);
  };
  const flush = async (): Promise<void> => {
    await running;
    signal?.throwIfAborted();
    const own = batch;
    batch = [];
    if (own.length === 0) return;
    running = (async () => {
      const computed = await compute(own.map(({ input }) => input));
      for (const [i, { at }] of own.entries()) rows[at] = computed[i] as Row;
      await store?.add(own.map(({ digest }, i) => [digest, computed[i] as Row]));
      tell(own.length);
    })();
    running.catch(() => {}); // whoever waits for it next hears of it
  };
  try {
    for (const [at, task] of tasks.entries()) {
      signal?.throwIfAborted();
      const read = await task.read();
      const { digest } = read;
      const known = await store?.get(digest);
      if (known) {
        rows[at] = known as Row;
        tell(1);
        continue;
      }
      batch.push({ at, digest, input: named(task.name, () => read.input()) });
      if (batch.length >= batchSize) await flush();
    }
    await flush();
  } finally {
    await running.catch(() => {});
  }
  await running;
  return rows;
}

/** Errors about an image say which. */
function named<T>(name: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (!(cause instanceof FemoError) || cause.code !== "E_IMAGE") throw cause;
    throw new FemoError("E_IMAGE", `${name}: ${cause.message}`, { cause });
  }
}

/** Images as tasks of one image each. */
export const imageTasks = (images: readonly ImageSource[]): Task<RgbImage>[] =>
  images.map(({ name, read }) => ({
    name,
    async read() {
      const image = await read();
      return { digest: image.digest, input: () => image.decode() };
    },
  }));

/** Pairs of images of one name. @throws FemoError E_OPTION if a set has an image that the other has not */
export function pairTasks(
  a: readonly ImageSource[],
  b: readonly ImageSource[],
  digestOf: (...parts: readonly string[]) => string,
): Task<readonly [RgbImage, RgbImage]>[] {
  const others = new Map(b.map((image) => [image.name, image]));
  const alone = a.find(({ name }) => !others.has(name));
  if (alone || a.length !== b.length) {
    const names = new Set(a.map(({ name }) => name));
    const more = alone?.name ?? b.find(({ name }) => !names.has(name))?.name;
    throw new FemoError(
      "E_OPTION",
      `pairs: expected images of the same names on both sides, found ${a.length} and ${b.length}; only one side has ${more}.`,
    );
  }
  return a.map((first) => {
    const second = others.get(first.name) as ImageSource;
    return {
      name: first.name,
      async read() {
        const [x, y] = [await first.read(), await second.read()];
        return { digest: digestOf(x.digest, y.digest), input: () => [x.decode(), y.decode()] as const };
      },
    };
  });
}

/** Images with a prompt each. @throws FemoError E_OPTION unless they are as many */
export function promptTasks(
  images: readonly ImageSource[],
  prompts: readonly string[],
  digestOf: (...parts: readonly string[]) => string,
): Task<{ readonly image: RgbImage; readonly prompt: string }>[] {
  if (images.length !== prompts.length) {
    throw new FemoError(
      "E_OPTION",
      `prompts: expected one for each image, in the order of the images' names; found ${prompts.length} prompts and ${images.length} images.`,
    );
  }
  return images.map(({ name, read }, i) => ({
    name,
    async read() {
      const image = await read();
      const prompt = prompts[i] as string;
      return { digest: digestOf(image.digest, prompt), input: () => ({ image: image.decode(), prompt }) };
    },
  }));
}
