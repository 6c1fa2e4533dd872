import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { FemoError, type FemoErrorCode } from "../../src/errors.js";
import type { ByteSource } from "../../src/weights/index.js";

/** Where the files written by the reference implementation lie. */
export const goldens = fileURLToPath(new URL("../goldens/weights", import.meta.url));

export const golden = (name: string): Uint8Array => Uint8Array.from(readFileSync(`${goldens}/${name}`));

interface ExpectedGolden {
  dtype: string;
  shape: number[];
  /** Stored bytes, hexadecimal. */
  bytes: string;
  /** Bytes of the values as float32, hexadecimal. */
  float32?: string;
}

export const expectedOf = (name: string): [string, ExpectedGolden][] =>
  Object.entries(
    JSON.parse(readFileSync(`${goldens}/${name}.expected.json`, "utf8")) as Record<string, ExpectedGolden>,
  );

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** A safetensors file of any header, valid or not. */
export function safetensors(header: unknown, data: Uint8Array = new Uint8Array(0), length?: bigint): Uint8Array {
  const text =
    header instanceof Uint8Array
      ? header
      : new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}

/** A source that fails the test when it is read outside, and counts the bytes that were read. */
export function guardedSource(bytes: Uint8Array, size = bytes.length): ByteSource & { bytesRead(): number } {
  let total = 0;
  return {
    name: "file.safetensors",
    size,
    async read(start, end) {
      if (!(start >= 0 && start <= end && end <= bytes.length)) throw new Error(`read [${start}, ${end}) outside`);
      total += end - start;
      return bytes.slice(start, end);
    },
    close: async () => {},
    bytesRead: () => total,
  };
}

/** The error of a promise or function, which must be a FemoError of that code. */
export async function femoError(code: FemoErrorCode, action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    expect(error).toBeInstanceOf(FemoError);
    expect((error as FemoError).code).toBe(code);
    return (error as FemoError).message;
  }
  throw new Error(`expected ${code}, but nothing was thrown`);
}
