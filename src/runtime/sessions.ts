import type { Engine, GraphFile, Session } from "./engine.js";

/** A graph that can be loaded. */
export interface Loadable {
  /** Bytes of its weights as they compute. */
  readonly bytes: number;
  file(): GraphFile;
}

interface Loaded {
  readonly session: Promise<Session>;
  readonly bytes: number;
  users: number;
}

/**
 * The graphs that are loaded in an engine. They stay until the weights of all take more than a limit: then those that
 * are not in use make room, the least recently used first. One that alone takes more is loaded all the same; it stays
 * beside the others, until another such takes its place.
 */
export class Sessions {
  readonly engine: Engine;
  readonly #limitBytes: number;
  /** In order of use, the most recent last. */
  readonly #loaded = new Map<Loadable, Loaded>();

  /** @param limitBytes of weights */
  constructor(engine: Engine, limitBytes: number) {
    this.engine = engine;
    this.#limitBytes = limitBytes;
  }

  /** Uses a graph, loading it first if it is not. A session is never freed while it is in use. */
  async use<T>(graph: Loadable, use: (session: Session) => Promise<T>): Promise<T> {
    const known = this.#loaded.get(graph);
    if (!known) this.#makeRoom(graph.bytes);
    const loaded = known ?? { session: this.engine.load(graph.file()), bytes: graph.bytes, users: 0 };
    this.#loaded.delete(graph); // to the end: most recently used
    this.#loaded.set(graph, loaded);
    loaded.users++;
    try {
      return await use(await loaded.session);
    } catch (error) {
      await loaded.session.catch(() => this.#loaded.get(graph) === loaded && this.#loaded.delete(graph));
      throw error;
    } finally {
      loaded.users--;
      this.#makeRoom(0);
    }
  }

  has(graph: Loadable): boolean {
    return this.#loaded.has(graph);
  }

  /** Frees a graph when its last run is over; the next use loads it again. */
  async release(graph: Loadable): Promise<void> {
    const session = this.#loaded.get(graph)?.session;
    this.#loaded.delete(graph);
    await (await session)?.release();
  }

  /** Frees a graph unless it is in use. */
  releaseIdle(graph: Loadable): void {
    if (this.#loaded.get(graph)?.users === 0) this.release(graph).catch(() => {}); // what did not load need not be freed
  }

  #makeRoom(bytes: number): void {
    let total = [...this.#loaded.values()].reduce(
      (sum, loaded) => sum + this.#counted(loaded.bytes),
      this.#counted(bytes),
    );
    const large = [...this.#loaded].filter(([, loaded]) => this.#isLarge(loaded.bytes));
    for (const [graph] of this.#isLarge(bytes) ? large : large.slice(0, -1)) this.releaseIdle(graph);
    for (const [graph, loaded] of [...this.#loaded]) {
      if (total <= this.#limitBytes) return;
      if (loaded.users > 0 || this.#counted(loaded.bytes) === 0) continue;
      total -= loaded.bytes;
      this.releaseIdle(graph);
    }
  }

  #isLarge(bytes: number): boolean {
    return bytes > this.#limitBytes;
  }

  /** Bytes against the limit. */
  #counted(bytes: number): number {
    return this.#isLarge(bytes) ? 0 : bytes;
  }
}
