import { createHash } from "node:crypto";
import type { Graph, Value } from "../../src/graph/index.js";

/**
 * A hash of what a graph computes: its operators in order, their attributes, shapes and connections, constants, and the
 * names of inputs, weights and outputs. Names that were counted up while it was built do not matter.
 */
export function graphHash(graph: Graph): string {
  const hash = createHash("sha256");
  const ids = new Map<Value, number>();
  const idOf = (value: Value | null | undefined): string => {
    if (!value) return "-";
    let id = ids.get(value);
    if (id === undefined) {
      id = ids.size;
      ids.set(value, id);
      const { origin } = value;
      if (origin) {
        hash.update(`${origin.kind} ${origin.kind === "constant" ? "" : value.name} ${value.dtype} [${value.shape}]\n`);
        if (origin.kind === "constant") {
          hash.update(new Uint8Array(origin.data.buffer, origin.data.byteOffset, origin.data.byteLength));
        }
      }
    }
    return String(id);
  };
  for (const { op, domain, inputs, outputs, attributes } of graph.reachable().nodes) {
    const given = inputs.map(idOf).join(" ");
    const made = outputs.map((value) => `${idOf(value)}:${value.dtype}[${value.shape}]`).join(" ");
    hash.update(`${domain}.${op}(${given}) ${JSON.stringify(attributes)} -> ${made}\n`);
  }
  for (const { name, value } of graph.outputs) hash.update(`output ${name} ${idOf(value)}\n`);
  return hash.digest("hex").slice(0, 16);
}
