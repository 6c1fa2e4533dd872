import { spawn } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { keptCheckpoint } from "../../src/platform/node/kept.js";
import type { ConversionProgress } from "../../src/platform/platform.js";
import {
  type Checkpoint,
  type DerivedTensor,
  filesOf,
  matrixInBits,
  openCheckpoint,
  type PackedMatrix,
} from "../../src/weights/index.js";
import { quantizeInt4, quantizeInt8 } from "../../src/weights/quantize.js";
import { noise } from "../runtime/helpers.js";
import { femoError, goldens, safetensors } from "../weights/helpers.js";
import { torchGoldens } from "../weights/torch-helpers.js";

const root = mkdtempSync(join(tmpdir(), "femo-kept-"));
afterAll(() => rmSync(root, { recursive: true }));

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(root, "cache-"));
});
const weightsFolder = () => join(folder, "weights");
const kept = () => readdirSync(weightsFolder()).map((name) => join(weightsFolder(), name));

const weights = noise([6, 200], 3).data as Float32Array;
/** float32 "w" [6, 200], the same again as "half" in bfloat16, and a "vector". */
async function written(name: string): Promise<Checkpoint> {
  const half = Uint8Array.from(
    { length: 2400 },
    (_, i) => new Uint8Array(weights.buffer)[4 * (i >> 1) + 2 + (i & 1)] as number,
  );
  const header = {
    w: { dtype: "F32", shape: [6, 200], data_offsets: [0, 4800] },
    half: { dtype: "BF16", shape: [6, 200], data_offsets: [4800, 7200] },
    vector: { dtype: "F32", shape: [1], data_offsets: [7200, 7204] },
  };
  const data = new Uint8Array(7204);
  data.set(new Uint8Array(weights.buffer));
  data.set(half, 4800);
  writeFileSync(join(root, name), safetensors(header, data));
  return openCheckpoint(nodeFolder(root), name);
}
const inBits = (checkpoint: Checkpoint, bits: 4 | 8, ...names: string[]): Checkpoint =>
  checkpoint.withDerived(names.map((name) => matrixInBits(checkpoint, name, bits)));

/** Tensors of counted bytes, made of nothing: which of them were made, and how often. */
function counted(checkpoint: Checkpoint, lengths: readonly number[], wrong: (name: string) => unknown = () => {}) {
  const made: string[] = [];
  const [file] = checkpoint.tensors().flatMap(filesOf) as [string];
  const tensors = lengths.map((length, i): DerivedTensor => {
    const name = `t${i}`;
    return {
      ...{ name, dtype: "uint8", shape: [length], recipe: `${i}`, files: [file] },
      async make() {
        await wrong(name);
        made.push(name);
        return new Uint8Array(length).fill(i + 1);
      },
    };
  });
  return { made, checkpoint: checkpoint.withDerived(tensors) };
}

describe("computed tensors", () => {
  test.each([
    [8, quantizeInt8],
    [4, quantizeInt4],
  ] as const)("are what they are computed to: matrices in %s bits, whatever their type", async (bits, quantize) => {
    const checkpoint = await written("a.safetensors");
    const computed = inBits(checkpoint, bits, "w", "half");
    const found = await keptCheckpoint(computed, { folder });
    expect(found.names()).toEqual(checkpoint.names());
    for (const name of ["w", "half"]) {
      const matrix = quantize(await checkpoint.readTensor(name), 200, name);
      const file = await openCheckpoint(nodeFolder(weightsFolder()), basename(kept()[0] as string));
      const bytes = (data: Uint8Array | Float32Array) => Uint8Array.from(new Uint8Array(data.buffer));
      expect(await file.readBytes(name)).toEqual(bytes(matrix.values));
      expect(await file.readBytes(`${name}.scales`)).toEqual(bytes(matrix.scales));
      expect(file.get(`${name}.zeros`)).toEqual(
        matrix.zeros && expect.objectContaining({ dtype: "uint8", shape: [6, matrix.zeros.length / 6] }),
      );
      expect((found.get(name) as PackedMatrix).parts.values).toEqual(file.get(name));
      expect(await found.readTensor(name)).toEqual(await computed.readTensor(name));
    }
    expect(await found.readTensor("vector")).toEqual(await checkpoint.readTensor("vector"));
    expect(found.derived().size).toBe(0);
    expect(found.fingerprint(kept()[0] as string)).toBeDefined();
  });

  test.each([
    [`${torchGoldens}/pipeline`, "transformer/diffusion_pytorch_model.bin"],
    [`${goldens}/../torch`, "DiT-tiny.pt"],
  ])("may be made from what torch.save wrote: %s %s", async (at, file) => {
    const checkpoint = await openCheckpoint(nodeFolder(at), file);
    const { name, shape } = checkpoint.tensors().find(({ shape }) => shape.length === 2) ?? expect.fail("no matrix");
    const found = await keptCheckpoint(inBits(checkpoint, 8, name), { folder });
    const { scales } = quantizeInt8(await checkpoint.readTensor(name), shape[1] as number, "w");
    expect(
      await (await openCheckpoint(nodeFolder(weightsFolder()), basename(kept()[0] as string))).readTensor(
        `${name}.scales`,
      ),
    ).toEqual(scales);
    expect(found.get(name)?.shape).toEqual(shape);
  });

  test("a checkpoint without any is left as it is, and nothing is written", async () => {
    const checkpoint = await written("none.safetensors");
    expect(await keptCheckpoint(checkpoint, { folder })).toBe(checkpoint);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("are made once, and again when the file that they are made from, or the choice, changes", async () => {
    const checkpoint = await written("b.safetensors");
    const first = counted(checkpoint, [5, 8]);
    await keptCheckpoint(first.checkpoint, { folder });
    expect(first.made).toEqual(["t1", "t0"]); // of odd length: last
    const again = counted(checkpoint, [5, 8]);
    await keptCheckpoint(again.checkpoint, { folder });
    expect(again.made).toEqual([]);
    await keptCheckpoint(counted(checkpoint, [5]).checkpoint, { folder });
    expect(kept()).toHaveLength(2);
    utimesSync(join(root, "b.safetensors"), 5, 5);
    const changed = await femoError("E_FILE", () => keptCheckpoint(first.checkpoint, { folder }));
    expect(changed).toMatch(/b.safetensors: changed since it was opened/);
    await keptCheckpoint(counted(await openCheckpoint(nodeFolder(root), "b.safetensors"), [5]).checkpoint, { folder });
    expect(kept()).toHaveLength(3);
  });

  test("progress is told tensor by tensor, and not at all when they are there", async () => {
    const { checkpoint } = counted(await written("p.safetensors"), [4, 8, 12]);
    const seen: ConversionProgress[] = [];
    const onProgress = (progress: ConversionProgress) => seen.push(progress);
    await keptCheckpoint(checkpoint, { folder, onProgress });
    expect(seen.map(({ tensor, tensorsDone }) => [tensor, tensorsDone])).toEqual([
      [undefined, 0],
      ["t0", 1],
      ["t1", 2],
      ["t2", 3],
    ]);
    const [file] = kept() as [string];
    expect(seen.at(-1)).toMatchObject({
      tensorsTotal: 3,
      bytesDone: statSync(file).size,
      bytesTotal: statSync(file).size,
    });
    await keptCheckpoint(checkpoint, { folder, onProgress });
    expect(seen).toHaveLength(4);
  });
});

describe("a kept file", () => {
  async function finished(name: string): Promise<[path: string, contents: Buffer, again: () => Promise<string[]>]> {
    const source = await written(name);
    await keptCheckpoint(counted(source, [4, 8, 12]).checkpoint, { folder });
    const [path] = kept() as [string];
    const contents = readFileSync(path);
    const again = async (): Promise<string[]> => {
      const { made, checkpoint } = counted(source, [4, 8, 12]);
      await keptCheckpoint(checkpoint, { folder });
      expect(kept()).toEqual([path]);
      return made;
    };
    return [path, contents, again];
  }

  test("that was only copied, or touched, is as good as before", async () => {
    const [path, , again] = await finished("c.safetensors");
    const { mtimeMs } = statSync(path);
    copyFileSync(path, join(folder, "copy"));
    rmSync(path);
    copyFileSync(join(folder, "copy"), path);
    expect(await again()).toEqual([]);
    expect(statSync(path).mtimeMs).toBe(mtimeMs);
  });

  test.each<[string, (path: string, contents: Buffer) => void]>([
    ["cut off", (path, { length }) => truncateSync(path, length - 3)],
    ["longer", (path, contents) => writeFileSync(path, Buffer.concat([contents, Buffer.of(0)]))],
    ["empty", (path) => truncateSync(path, 0)],
    ["with another byte at the end", (path, contents) => writeFileSync(path, contents.fill(7, contents.length - 1))],
    ["with another byte in its header", (path, contents) => writeFileSync(path, contents.fill("x", 100, 101))],
  ])("%s is made again", async (_, damage) => {
    const [path, contents, again] = await finished("d.safetensors");
    const whole = Buffer.from(contents);
    damage(path, contents);
    expect((await again()).length).toBeGreaterThan(0);
    const data = (file: Buffer) => file.subarray(-24);
    expect(data(readFileSync(path))).toEqual(data(whole));
  });

  test("two who make it at once both get it, and no other file stays", async () => {
    const source = await written("e.safetensors");
    const both = [1, 2].map(() => keptCheckpoint(counted(source, [4, 8]).checkpoint, { folder }));
    const [a, b] = await Promise.all(both);
    expect(await a?.readBytes("t1")).toEqual(await b?.readBytes("t1"));
    expect(a?.fingerprint(kept()[0] as string)).toBe(b?.fingerprint(kept()[0] as string));
    expect(kept()).toHaveLength(1);
  });
});

describe("a conversion", () => {
  const changed = (file: Buffer, fromEnd: number) => file.fill(9, file.length - fromEnd, file.length - fromEnd + 1);
  /** Stops before tensor `at`, and says what is left. */
  async function stopped(source: Checkpoint, at: number): Promise<string[]> {
    const [controller, reason] = [new AbortController(), new Error("enough")];
    const onProgress = ({ tensorsDone }: ConversionProgress) => {
      if (tensorsDone === at) controller.abort(reason);
    };
    const { checkpoint } = counted(source, [4, 8, 12]);
    await expect(keptCheckpoint(checkpoint, { folder, signal: controller.signal, onProgress })).rejects.toBe(reason);
    return kept();
  }
  async function resumed(source: Checkpoint): Promise<string[]> {
    const { made, checkpoint } = counted(source, [4, 8, 12]);
    const found = await keptCheckpoint(checkpoint, { folder });
    for (const [i, length] of [4, 8, 12].entries()) {
      expect(await found.readBytes(`t${i}`)).toEqual(new Uint8Array(length).fill(i + 1));
    }
    expect(kept()).toHaveLength(1);
    return made;
  }

  test("that is stopped at once leaves no file", async () => {
    expect(await stopped(await written("f.safetensors"), 0)).toEqual([]);
  });

  test("that is stopped on the way goes on where it was", async () => {
    const source = await written("g.safetensors");
    expect(await stopped(source, 2)).toHaveLength(1);
    expect(await resumed(source)).toEqual(["t2"]);
  });

  test.each<[string, (path: string) => void, string[]]>([
    ["cut off", (path) => truncateSync(path, statSync(path).size - 1), ["t1", "t2"]],
    ["of other bytes", (path) => writeFileSync(path, changed(readFileSync(path), 12)), ["t0", "t1", "t2"]],
    ["without a header", (path) => truncateSync(path, 20), ["t0", "t1", "t2"]],
    ["of nothing", (path) => truncateSync(path, 0), ["t0", "t1", "t2"]],
    ["followed by more", (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(99)])), ["t2"]],
  ])("goes on from what is sound of a part %s", async (_, damage, wanted) => {
    const source = await written("h.safetensors");
    const [part] = await stopped(source, 2);
    damage(part as string);
    expect(await resumed(source)).toEqual(wanted);
  });

  test("takes over what a process left that died in the middle", async () => {
    const source = await written("i.safetensors");
    const [part] = (await stopped(source, 2)) as [string];
    const dead = spawn(process.execPath, ["-e", ""]);
    await new Promise((resolve) => dead.once("exit", resolve));
    const { claimFile } = await import("../../src/platform/node/owned-files.js");
    const own = await claimFile({
      folder: weightsFolder(),
      stem: basename(part).split(".")[0] as string,
      ending: "part",
    });
    expect(kept()).toEqual([own]);
    const left = own.replace(`-${process.pid}-`, `-${dead.pid}-`);
    copyFileSync(own, left);
    rmSync(own);
    expect(await resumed(source)).toEqual(["t2"]);
  });

  test("whose tensor cannot be computed fails with that error, and leaves no file", async () => {
    const source = await written("j.safetensors");
    const computed = inBits(source, 8, "w");
    truncateSync(join(root, "j.safetensors"), 300);
    await femoError("E_FILE", () => keptCheckpoint(computed, { folder }));
    const infinite = new Uint8Array(Float32Array.of(1, Number.POSITIVE_INFINITY).buffer);
    const header = { w: { dtype: "F32", shape: [1, 2], data_offsets: [0, 8] } };
    writeFileSync(join(root, "j.safetensors"), safetensors(header, infinite));
    const opened = await openCheckpoint(nodeFolder(root), "j.safetensors");
    const message = await femoError("E_WEIGHT", () => keptCheckpoint(inBits(opened, 4, "w"), { folder }));
    expect(message).toMatch(/w: expected finite weights, found Infinity at element 1/);
    expect(kept()).toEqual([]);
  });

  test("whose source changes on the way fails, and leaves no file", async () => {
    const source = await written("k.safetensors");
    const change = () => utimesSync(join(root, "k.safetensors"), 7, 7);
    const { checkpoint } = counted(source, [4, 8], (name) => name === "t1" && change());
    expect(await femoError("E_FILE", () => keptCheckpoint(checkpoint, { folder }))).toContain("changed since");
    expect(kept()).toEqual([]);
  });

  test("a tensor of another length than it says is refused", async () => {
    const source = await written("l.safetensors");
    const { checkpoint } = counted(source, [4]);
    const short = { ...(checkpoint.get("t0") as DerivedTensor), shape: [8] };
    const run = () => keptCheckpoint(source.withDerived([short]), { folder });
    expect(await femoError("E_WEIGHT", run)).toMatch(/t0.*expected 8 bytes, made 4/);
  });

  test("a folder that cannot be written is named, and what to do", async () => {
    const computed = inBits(await written("m.safetensors"), 8, "w");
    const blocked = join(folder, "file");
    mkdirSync(folder, { recursive: true });
    writeFileSync(blocked, "");
    const run = () => keptCheckpoint(computed, { folder: blocked });
    expect(await femoError("E_FILE", run)).toMatch(/file.*cannot be written.*FEMO_CACHE/s);
  });
});
