import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { childrenOf, runScript } from "./scripts.js";

// ONNX Runtime's own telemetry writes its files when a session is made, and looks for its server 9 seconds later.
const IDLE_MS = 12_000;
const SCRIPT = `
  import { DiffusionPipeline } from "./dist/index.js";
  const pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
  await pipeline.generate({ classLabels: 0, numInferenceSteps: 1 });
  await new Promise((resolve) => setTimeout(resolve, ${IDLE_MS}));
  await pipeline.close();
  console.log("drawn");`;

/** Of sockets on Unix domains, which lead no further than this machine: a list that is read while others open and close may lack some. */
const unix = new Set<string>();
/** The sockets of a process, as far as they are not known to be on a Unix domain. */
function networkSockets(pid: number): string[] {
  const open = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1];
    if (inode) open.add(inode);
  }
  for (const line of readFileSync(`/proc/${pid}/net/unix`, "utf8").split("\n")) unix.add(line.split(/\s+/)[6] ?? "");
  return [...open].filter((inode) => !unix.has(inode));
}
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}

// Elsewhere there is no /proc to tell which sockets are open.
test.skipIf(process.platform !== "linux")("drawing leaves no file behind and opens no connection", async () => {
  const folder = mkdtempSync(join(tmpdir(), "femo-telemetry-"));
  const { ORT_DISABLE_TELEMETRY: _, ...env } = process.env;
  for (const name of ["HOME", "TMPDIR"]) {
    env[name] = join(folder, name);
    mkdirSync(env[name]);
  }
  const engines = new Set<number>();
  const sockets = new Set<string>();
  let watch: NodeJS.Timeout | undefined;
  try {
    const ending = await runScript(SCRIPT, {
      env,
      during: ({ pid }) => {
        watch = setInterval(() => {
          try {
            for (const engine of childrenOf(pid)) engines.add(engine);
            for (const one of [pid as number, ...engines]) for (const found of networkSockets(one)) sockets.add(found);
          } catch {} // a process that has just ended
        }, 5);
      },
    });
    expect(ending).toEqual({ code: 0, stdout: "drawn\n", stderr: "" });
    expect(engines.size).toBe(1);
    expect([...sockets].filter((inode) => !unix.has(inode))).toEqual([]);
    expect(readdirSync(folder, { recursive: true }).sort()).toEqual(["HOME", "TMPDIR"]);
  } finally {
    clearInterval(watch);
    rmSync(folder, { recursive: true });
  }
});
