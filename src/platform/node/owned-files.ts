import { createHash } from "node:crypto";
import { readlinkSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/**
 * Files that are under way, each written by one process: `<stem>.femo-<host>-<pid>-<n>.<ending>`. Another takes one over by
 * renaming it, which only one can do, once its owner has let go (`<stem>.femo.<ending>`) or has died. So no two ever
 * write to the same file, without locks.
 */
export interface OwnedFiles {
  readonly folder: string;
  /** Without a dot. */
  readonly stem: string;
  readonly ending: string;
}

/**
 * A path for a file of one's own: where what an earlier owner left now is, the longest if there are several, or where
 * nothing is. Folders are made; the others are removed.
 */
export async function claimFile(files: OwnedFiles): Promise<string> {
  const { folder, stem, ending } = files;
  const path = join(folder, `${stem}.femo-${HOST}-${process.pid}-${serial++}.${ending}`);
  await mkdir(folder, { recursive: true });
  let taken = false;
  for (const left of await abandoned(files)) {
    if (taken) await rm(left, { force: true });
    else taken = await tryRename(left, path); // another may be quicker
  }
  return path;
}

/** Leaves one's own file for others to take over. */
export const releaseFile = (path: string, { folder, stem, ending }: OwnedFiles): Promise<void> =>
  rename(path, join(folder, `${stem}.femo.${ending}`));

let serial = 0;

const tryRename = (from: string, to: string): Promise<boolean> =>
  rename(from, to).then(
    () => true,
    () => false,
  );

/** Where process numbers mean the same: this machine and, on Linux, this container. */
const HOST = createHash("sha256").update(`${hostname()} ${processNamespace()}`).digest("hex").slice(0, 8);

function processNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return ""; // not Linux: there is only one
  }
}

/** What nobody writes to any more, the longest first. */
async function abandoned({ folder, stem, ending }: OwnedFiles): Promise<string[]> {
  const found: { path: string; size: number }[] = [];
  for (const name of await readdir(folder)) {
    const match = /^([^.]+)\.femo(?:-([0-9a-f]{8})-(\d+)-\d+)?\.(\w+)$/.exec(name);
    if (match?.[1] !== stem || match[4] !== ending) continue;
    const path = join(folder, name);
    const state = await stat(path).catch(() => undefined); // taken over or finished meanwhile
    const [, , host, pid] = match;
    if (!state || (host !== undefined && (host !== HOST || isWriting(Number(pid), state.mtimeMs)))) continue;
    found.push({ path, size: state.size });
  }
  return found.sort((a, b) => b.size - a.size).map(({ path }) => path);
}

/** True if the process may still be writing to a file last changed at that time. */
function isWriting(pid: number, mtimeMs: number): boolean {
  // In containers an earlier process often had the number that this one has.
  if (pid === process.pid) return mtimeMs > Date.now() - 1000 * process.uptime();
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}
