import { Command, Option } from "commander";
import { costTableNames, costTablesCsv, costTablesText, paperCosts } from "../studies/index.js";
import { listOf } from "./options.js";

interface CostsFlags {
  table?: string[];
  json?: boolean;
  csv?: boolean;
}

/** `femo study`: results of the FEMO paper, made again. */
export const studyCommand = (): Command =>
  new Command("study").description("make results of the FEMO paper again").addCommand(costsCommand());

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
