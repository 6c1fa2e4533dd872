import { Command } from "commander";
import { pretrainedClasses } from "../pipelines/pretrained.js";
import { addModel, type CommandContext, type ModelFlags } from "./options.js";

/** `femo classes`: the classes of a model, for which its configs are enough. */
export const classesCommand = ({ signal }: CommandContext): Command =>
  addModel(new Command("classes").description("list the classes of a model"), "avatars-dit").action(
    async ({ model, revision, cacheDir }: ModelFlags) => {
      const classes = await pretrainedClasses(model, { revision, cacheDir, signal });
      for (const [id, names] of classes) process.stdout.write(`${id}\t${names.join(", ")}\n`);
    },
  );
