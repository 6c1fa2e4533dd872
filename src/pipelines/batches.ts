import { bindShape, sizeOf } from "../graph/index.js";
import type { Condition, Subject } from "./family.js";
import type { Request } from "./request.js";

/** What the tables of conditions may take. A request whose distinct conditions need more computes them part by part. */
const MAX_TABLE_BYTES = 2 ** 30;

/** Batches one after the other, and the distinct conditions of all of them. */
export interface BatchGroup {
  readonly batches: readonly number[][];
  readonly conditions: readonly Condition[];
}

/** The batches of a request, as many together as have room for their conditions; one at least. */
export function batchGroups(request: Request): BatchGroup[] {
  const { backbone, subjects, batchSize, sampler, sizes } = request;
  const bytesOf = (hoisted: "pair" | "condition"): number =>
    backbone.cut({ hoisted }).network.outputs.reduce((sum, { shape }) => {
      return sum + Float32Array.BYTES_PER_ELEMENT * sizeOf(bindShape(shape.slice(1), sizes));
    }, 0);
  const most = MAX_TABLE_BYTES / (bytesOf("condition") + sampler.timesteps.length * bytesOf("pair"));
  const groups: { batches: number[][]; conditions: Set<Condition> }[] = [];
  for (let first = 0; first < subjects.length; first += batchSize) {
    const batch = subjects.slice(first, first + batchSize).map((_, i) => first + i);
    const needed = batch.flatMap((index) => rowsOf(request, index).map(({ condition }) => condition));
    const last = groups.at(-1);
    const together = new Set([...(last?.conditions ?? []), ...needed]);
    if (last && together.size <= most) {
      last.batches.push(batch);
      last.conditions = together;
    } else groups.push({ batches: [batch], conditions: new Set(needed) });
  }
  return groups.map(({ batches, conditions }) => ({ batches, conditions: [...conditions] }));
}

/** The runs that an image takes in each step. */
export const rowsOf = ({ subjects }: Request, image: number): Subject["rows"] => (subjects[image] as Subject).rows;
