import { Command } from "commander";
import { type CommandContext, modelOption, openPipeline } from "./options.js";

/** `femo classes`: the classes of a model. */
export const classesCommand = ({ signal }: CommandContext): Command =>
  new Command("classes")
    .description("list the classes of a model")
    .addOption(modelOption())
    .action(async ({ model }: { model: string }) => {
      const pipeline = await openPipeline({ model }, signal);
      for (const [id, names] of pipeline.classes) process.stdout.write(`${id}\t${names.join(", ")}\n`);
      await pipeline.close();
    });
