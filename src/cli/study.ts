import { Command, Option } from "commander";
import {
  costTableNames,
  costTablesCsv,
  costTablesText,
  paperCosts,
  speedReadingsText,
  table2Readings,
} from "../studies/index.js";
import { type CommandContext, listOf } from "./options.js";
import { paperCommand } from "./study-paper.js";
import { qualityCommand } from "./study-quality.js";

interface CostsFlags {
  table?: string[];
  json?: boolean;
  csv?: boolean;
}

/** `femo study`: methods ranked on many images, and results of the FEMO paper, made again. */
export const studyCommand = (context: CommandContext): Command =>
  new Command("study")
    .description("rank methods on many images, and make results of the FEMO paper again")
    .addCommand(qualityCommand(context))
    .addCommand(paperCommand(context))
    .addCommand(costsCommand())
    .addCommand(table2Command());

const costsCommand = (): Command =>
  new Command("costs")
    .description("FLOPs and speed-ups of the paper's tables, counted from the models' graphs, beside the printed ones")
    .option("--table <list>", `tables, of ${costTableNames.join(", ")} (default: all)`, listOf(String))
    .option("--json", "print JSON")
    .addOption(new Option("--csv", "print comma-separated values").conflicts("json"))
    .action(({ table, json, csv }: CostsFlags) => {
      const tables = paperCosts(table?.map((name) => name.toUpperCase()));
      const text = json ? JSON.stringify({ tables }, null, 2) : csv ? costTablesCsv(tables) : costTablesText(tables);
      process.stdout.write(`${text}\n`);
    });

const table2Command = (): Command =>
  new Command("table2")
    .description(
      "what the speed-ups of the paper's Table 2 (SDXL) can be read as, by operations of every level and cut",
    )
    .addOption(new Option("--size <pixels>", "height and width of the image").choices(["512", "1024"]).default("1024"))
    .option("--json", "print JSON")
    .action(({ size, json }: { size: string; json?: boolean }) => {
      const readings = table2Readings(Number(size));
      process.stdout.write(
        `${json ? JSON.stringify({ readings }, null, 2) : speedReadingsText(Number(size), readings)}\n`,
      );
    });
