import type { Engine, RunRequest } from "../../src/runtime/engine.js";

/** An engine that notes what it holds. */
export function watchedEngine(engine: Engine): { readonly engine: Engine; readonly held: ReadonlySet<string> } {
  const held = new Set<string>();
  const note = (names: Iterable<string>): void => {
    for (const name of names) held.add(name);
  };
  const noteRuns = (requests: readonly RunRequest[]): void => {
    for (const { hold } of requests) note(Object.values(hold ?? {}));
  };
  return {
    held,
    engine: {
      ...engine,
      async load(graph) {
        const session = await engine.load(graph);
        return {
          ...session,
          run(request) {
            noteRuns([request]);
            return session.run(request);
          },
          runEach(requests) {
            noteRuns(requests);
            return session.runEach(requests);
          },
        };
      },
      holdZeros(dims, dtype) {
        note(Object.keys(dims));
        return engine.holdZeros(dims, dtype);
      },
      take(rows) {
        note(Object.keys(rows));
        return engine.take(rows);
      },
      free(names) {
        for (const name of names) held.delete(name);
        return engine.free(names);
      },
    },
  };
}
