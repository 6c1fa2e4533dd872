#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { FemoError } from "../errors.js";
import { calibrateCommand } from "./calibrate.js";
import { classesCommand } from "./classes.js";
import { compareCommand } from "./compare.js";
import { doctorCommand } from "./doctor.js";
import { generateCommand } from "./generate.js";
import { metricsCommand } from "./metrics.js";
import { studyCommand } from "./study.js";

/** Ctrl-C, as shells report it. */
const INTERRUPTED = 130;
/** Output that whoever read it wants no more of, as `head` does: SIGPIPE, as shells report it. */
const UNREAD = 141;

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const abort = new AbortController();
process.once("SIGINT", () => abort.abort()); // asked twice, the process ends at once, as without a handler
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(UNREAD);
  process.stderr.write(`femo: standard output: not all was written, ${error.message}\n`);
  process.exit(1);
});
process.stderr.on("error", () => {}); // progress that nobody reads; what was asked for goes on

const program = new Command("femo")
  .description("Diffusion transformers, faster without training: features are forecast instead of computed")
  .version(version)
  .exitOverride()
  .showHelpAfterError("(--help shows what there is)");
for (const make of [
  ...[generateCommand, compareCommand, calibrateCommand, classesCommand],
  ...[metricsCommand, studyCommand, doctorCommand],
]) {
  const command = make({ version, signal: abort.signal }).copyInheritedSettings(program);
  for (const nested of command.commands) nested.copyInheritedSettings(command);
  program.addCommand(command);
}

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  if (abort.signal.aborted) return INTERRUPTED;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // commander has said what is wrong
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  process.stderr.write(`femo: ${process.env.FEMO_DEBUG === "1" ? stack : message}\n`);
  return error instanceof FemoError && error.code === "E_OPTION" ? 2 : 1;
}
