import { Command } from "commander";
import { type MachineReport, machineReport } from "../platform/node/doctor.js";
import { bytesText } from "../studies/table.js";
import type { CommandContext } from "./options.js";
import { jsonText, print } from "./output.js";

/** `femo doctor`: what this machine computes with, and how fast. */
export const doctorCommand = ({ version, signal }: CommandContext): Command =>
  new Command("doctor")
    .description("list versions, memory and devices, with the rates of linear layers on each")
    .option("--json", "print it as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const report = await machineReport(signal);
      print(json ? jsonText({ femo: version, ...report }, 2) : reportText(version, report));
    });

function reportText(version: string, { versions, system, cpu, memory, devices, models }: MachineReport): string {
  const allowed = memory.allowed === undefined ? "" : `, of which the process may have ${bytesText(memory.allowed)}`;
  return [
    `femo      ${version}, Node ${versions.node}, ONNX Runtime ${versions.onnxruntime}, ${system}`,
    `processor ${cpu.model}, ${cpu.cores} threads at once`,
    `memory    ${bytesText(memory.total)}, ${bytesText(memory.free)} free${allowed}`,
    `models    ${models.join(", ") || "none embedded: names on the Hub, folders and files"}`,
    "devices",
    ...devices.map(({ device, title, gflops, fewBitsGflops, missing }) =>
      missing === undefined
        ? `  ${device.padEnd(7)} ${title}: linear layers ${ratesText({ float32: gflops, ...fewBitsGflops })}`
        : `  ${device.padEnd(7)} ${missing.replace(/^device: /, "")}`,
    ),
  ].join("\n");
}

const ratesText = (rates: Readonly<Record<string, number | undefined>>): string => {
  const known = Object.entries(rates).flatMap(([dtype, rate]) => (rate ? [`${rate.toPrecision(3)} in ${dtype}`] : []));
  return `${known.join(", ")} (GFLOP/s)`;
};
