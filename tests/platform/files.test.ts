import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openFile } from "../../src/platform/node/file.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type ByteSource, type FolderSource, memoryByteSource, memoryFolder } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";

const content = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 251);
let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "femo-weights-"));
  await mkdir(join(root, "folder/sub"), { recursive: true });
  await mkdir(join(root, "blobs"));
  await writeFile(join(root, "folder/data.bin"), content);
  await writeFile(join(root, "folder/sub/a.txt"), "\ufeffgrün");
  await writeFile(join(root, "folder/latin1.txt"), Uint8Array.of(0x67, 0xfc));
  await writeFile(join(root, "secret.txt"), "secret");
  await writeFile(join(root, "blobs/0123abcd"), "blob");
  await symlink("../blobs/0123abcd", join(root, "folder/link.txt"));
  await symlink("loop", join(root, "folder/loop"));
});
afterAll(() => rm(root, { recursive: true }));

describe.each<[string, () => Promise<ByteSource>]>([
  ["openFile", () => openFile(join(root, "folder/data.bin"))],
  ["memoryByteSource", async () => memoryByteSource("data.bin", content)],
])("%s", (_, open) => {
  test("reads exactly what is asked for", async () => {
    const source = await open();
    expect(source.size).toBe(content.length);
    for (const [start, end] of [
      [0, 0],
      [0, 1],
      [99_999, 100_000],
      [100_000, 100_000],
      [123, 70_001],
      [0, 100_000],
    ] as const) {
      expect(Buffer.compare(await source.read(start, end), content.subarray(start, end))).toBe(0);
    }
    await source.close();
  });

  test("refuses what is outside, and says where", async () => {
    const source = await open();
    for (const [start, end] of [
      [-1, 1],
      [0, 100_001],
      [5, 4],
      [0.5, 2],
      [0, Number.NaN],
      [2 ** 60, 2 ** 61],
    ] as const) {
      expect(await femoError("E_FILE", () => source.read(start, end))).toMatch(/data\.bin: bytes .* has 100000/);
    }
    await source.close();
  });

  test("may be closed twice and then not read", async () => {
    const source = await open();
    await source.close();
    await source.close();
    expect(await femoError("E_FILE", () => source.read(0, 1))).toContain("after it was closed");
  });

  test("gives bytes away: changing them changes nothing else", async () => {
    const source = await open();
    (await source.read(0, 10)).fill(255);
    expect(await source.read(0, 10)).toEqual(content.slice(0, 10));
    await source.close();
  });
});

describe("openFile", () => {
  test("names what is not there or not a file", async () => {
    expect(await femoError("E_FILE", () => openFile(join(root, "nothing.bin")))).toMatch(/nothing\.bin: no such file/);
    expect(await femoError("E_FILE", () => openFile(join(root, "folder")))).toContain("found a folder");
    expect(await femoError("E_FILE", () => openFile(join(root, "secret.txt/x")))).toContain("not a folder");
    expect(await femoError("E_FILE", () => openFile(join(root, "folder/loop")))).toContain("circle");
    expect(await femoError("E_FILE", () => openFile("/dev/zero"))).toContain("device");
    expect(await femoError("E_FILE", () => openFile("a\0b"))).toContain("character");
  });

  test("notices a file that became shorter", async () => {
    const path = join(root, "shrinks.bin");
    await writeFile(path, content);
    const source = await openFile(path);
    await truncate(path, 50);
    expect(await femoError("E_FILE", () => source.read(0, 100))).toContain("now ends at 50");
    await source.close();
  });
});

describe.each<[string, () => Promise<FolderSource>]>([
  ["nodeFolder", async () => nodeFolder(join(root, "folder"))],
  [
    "memoryFolder",
    async () =>
      memoryFolder(
        "folder",
        new Map(
          await Promise.all(
            ["data.bin", "sub/a.txt", "latin1.txt"].map(async (path) => {
              return [path, Uint8Array.from(await readFile(join(root, "folder", path)))] as const;
            }),
          ),
        ),
      ),
  ],
])("%s", (_, open) => {
  test("finds and reads its files", async () => {
    const folder = await open();
    expect(await folder.exists("data.bin")).toBe(true);
    expect(await folder.exists("./sub//a.txt")).toBe(true);
    expect(await folder.exists("sub")).toBe(false);
    expect(await folder.exists("none")).toBe(false);
    expect(await folder.exists("data.bin/x")).toBe(false);
    expect(await folder.readText("sub/a.txt")).toBe("grün");
    const source = await folder.open("data.bin");
    expect(await source.read(5, 9)).toEqual(content.slice(5, 9));
    await source.close();
  });

  test("lists the files directly in a folder", async () => {
    const folder = await open();
    expect(await folder.list?.("sub")).toEqual(["a.txt"]);
    const names = await folder.list?.(".");
    expect(names).toContain("data.bin");
    expect(names).not.toContain("sub");
    expect(names).not.toContain("loop");
    expect(await folder.list?.("none")).toEqual([]);
  });

  test("refuses texts that are too long or not UTF-8", async () => {
    const folder = await open();
    expect(await femoError("E_FILE", () => folder.readText("data.bin", 99_999))).toContain(
      "at most 99999 bytes, found 100000",
    );
    expect(await femoError("E_FILE", () => folder.readText("latin1.txt"))).toMatch(/latin1\.txt: expected UTF-8/);
  });

  test("names what is not there", async () => {
    const folder = await open();
    for (const action of ["open", "readText", "resolve"] as const) {
      expect(await femoError("E_FILE", async () => folder[action]("sub/none.json"))).toMatch(
        /none\.json: no such file/,
      );
    }
  });

  test.each([
    "../secret.txt",
    "sub/../../secret.txt",
    "/etc/passwd",
    "..",
    "",
    ".",
    "..\\secret.txt",
    "C:/x",
    "a\0",
    "a\nb",
  ])("stays inside: %j", async (path) => {
    const folder = await open();
    const actions = ["exists", "open", "readText", "resolve", ...(path === "." ? [] : (["list"] as const))] as const;
    for (const action of actions) {
      const message = await femoError("E_FILE", async () => folder[action]?.(path));
      expect(message).toContain(`the path ${JSON.stringify(path)}`);
    }
  });
});

test("nodeFolder under another name: messages have it, and not the path", async () => {
  const folder = nodeFolder(join(root, "folder"), "owner/name");
  expect(folder.name).toBe("owner/name");
  const source = await folder.open("sub/a.txt");
  expect(source.name).toBe("owner/name/sub/a.txt");
  await source.close();
  for (const action of [
    () => folder.open("sub"),
    () => folder.readText("latin1.txt"),
    async () => folder.resolve("none"),
  ]) {
    const message = await femoError("E_FILE", action);
    expect(message).toMatch(/^owner\/name\//);
    expect(message).not.toContain(root);
  }
});

test("nodeFolder follows its own links, as the Hugging Face cache needs, and resolve says where they lead", async () => {
  const folder = nodeFolder(join(root, "folder"));
  expect(await folder.exists("link.txt")).toBe(true);
  expect(await folder.readText("link.txt")).toBe("blob");
  expect(folder.resolve("link.txt")).toMatch(/blobs.0123abcd$/);
  expect(folder.resolve("data.bin")).toMatch(/folder.data\.bin$/);
});
