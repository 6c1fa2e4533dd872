import { readFileSync } from "node:fs";

/**
 * Of this process and of its engine's, as the kernel counts. Linux only.
 * @param {string} field of /proc/self/status, in kB, such as VmHWM
 */
export const megabytes = (field) => {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").match(/\d+/g) ?? [];
  const kilobytes = ["self", ...children].map((pid) =>
    Number(new RegExp(`${field}:\\s*(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]),
  );
  return kilobytes.reduce((a, b) => a + b) / 1000;
};
