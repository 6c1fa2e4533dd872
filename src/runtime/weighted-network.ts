import type { Graph } from "../graph/index.js";
import type { Checkpoint, VerifyOptions } from "../weights/index.js";
import { graphWriter } from "./graph-writer.js";
import { Network, type NetworkOptions } from "./network.js";
import type { Sessions } from "./sessions.js";

/**
 * A network whose weights are a checkpoint's tensors, by their names.
 * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the graph's weights, apart from what may be ignored;
 *   E_FILE as `graphWriter`
 */
export function weightedNetwork(
  graph: Graph,
  checkpoint: Checkpoint,
  sessions: Sessions,
  options: NetworkOptions & VerifyOptions = {},
): Network {
  const needed = graph.reachable().weights.map(({ name, shape }) => ({ name, shape: shape as number[] }));
  checkpoint.verify(needed, options);
  return new Network(graph, graphWriter(checkpoint), sessions, options);
}
