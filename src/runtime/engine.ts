import type { Target } from "../graph/index.js";

export type HostDtype = "float32" | "float16" | "int64";

/** A tensor in host memory. Data is row-major. */
export interface HostTensor {
  readonly dtype: HostDtype;
  readonly dims: readonly number[];
  /** Of float16 the bits. */
  readonly data: Float32Array | Uint16Array | BigInt64Array;
}

/** What a tensor of zeros may be. */
export type HeldDtype = Exclude<HostDtype, "int64">;

/** What a graph input gets: a tensor sent along, or one that the engine holds, read in another shape if one is given. */
export type Feed = HostTensor | { readonly held: string; readonly dims?: readonly number[] };

/** A serialised ONNX model and the files in which its external weights lie. */
export interface GraphFile {
  readonly model: Uint8Array;
  readonly files: readonly WeightFile[];
  /**
   * Whether the graph runs once, or hardly more. Otherwise its weights are copied into the order in which products read
   * them: that pays over several runs, and takes a second for each gigabyte.
   */
  readonly once?: boolean;
}

export interface WeightFile {
  /** As the model says it: a path relative to one folder for all of its files. */
  readonly name: string;
  /** A path, which ends with the name, or an address, or the bytes themselves. */
  readonly at: string | URL | Blob | Uint8Array;
  /**
   * Of the file as it was when the model was opened (`ByteSource.fingerprint`). Loads and runs fail once it is another.
   * Without it, the file counts as opened when its graph is loaded.
   */
  readonly fingerprint?: string;
}

export interface RunRequest {
  readonly feeds: Readonly<Record<string, Feed>>;
  /** Outputs to send back. */
  readonly fetch: readonly string[];
  /**
   * Outputs to leave with the engine: graph output name to the name it is held under. A tensor that is held under the
   * name already is written over, so its shape must be the output's, unless the same run reads it.
   */
  readonly hold?: Readonly<Record<string, string>>;
}

export interface RunResult {
  readonly outputs: Readonly<Record<string, HostTensor>>;
  /** Time inside the runtime, without the way there and back, in milliseconds. */
  readonly durationMs: number;
}

/** A loaded graph. */
export interface Session {
  /**
   * @throws FemoError E_RUNTIME if an input is missing, unknown or does not fit, an output is not the graph's, or a name
   *   is not held; E_FILE if a weight file has changed
   */
  run(request: RunRequest): Promise<RunResult>;
  /** Runs one after the other, in one way there and back. @throws FemoError as `run` */
  runEach(requests: readonly RunRequest[]): Promise<RunResult[]>;
  /** Frees the graph and its weights. */
  release(): Promise<void>;
}

/** Rows of the first axis of a held tensor, in this order; one may come several times. */
export interface HeldRows {
  readonly from: string;
  readonly rows: readonly number[];
}

/** What an engine computes on. */
export interface EngineDevice {
  /** "cpu", "wasm", "webgpu" or another of the runtime's providers. */
  readonly kind: string;
  /** In words. */
  readonly title: string;
  /** False where it is known not to compute in float16. */
  readonly float16?: boolean | undefined;
}

/**
 * Runs graphs away from the event loop, one at a time in the order of the calls. Tensors that stay with the engine are
 * named by the caller, who frees them. All calls fail with E_RUNTIME once the engine is closed, or has died.
 */
export interface Engine {
  readonly device: EngineDevice;
  /** For what graphs are to be written. */
  readonly target: Target;
  /**
   * @throws FemoError E_RUNTIME if the model does not load; E_FILE if a weight file cannot be read, or has changed since
   *   it was opened
   */
  load(graph: GraphFile): Promise<Session>;
  /** Tensors of zeros, held under the given names. @param dtype default float32 */
  holdZeros(dims: Readonly<Record<string, readonly number[]>>, dtype?: HeldDtype): Promise<void>;
  /**
   * New held tensors, by name, made of rows of held ones. All are read before any is replaced.
   * @throws FemoError E_RUNTIME if a tensor is not held, or has no such row; then nothing has changed
   */
  take(rows: Readonly<Record<string, HeldRows>>): Promise<void>;
  /** Frees held tensors; names that are not held are ignored. */
  free(names: readonly string[]): Promise<void>;
  /** Ends the engine, in the middle of a run or not; calls not yet answered fail with E_RUNTIME. */
  close(): Promise<void>;
}
