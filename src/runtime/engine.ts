/** A tensor in host memory. Data is row-major. */
export interface HostTensor {
  readonly dtype: "float32" | "int64";
  readonly dims: readonly number[];
  readonly data: Float32Array | BigInt64Array;
}

/** What a graph input gets: a tensor sent along, or one that the engine holds, read in another shape if one is given. */
export type Feed = HostTensor | { readonly held: string; readonly dims?: readonly number[] };

/** A serialised ONNX model and the folder in which its external weights lie. */
export interface GraphFile {
  readonly model: Uint8Array;
  readonly weightsFolder: string;
  /**
   * Whether the graph runs once, or hardly more. Otherwise its weights are copied into the order in which products read
   * them: that pays over several runs, and takes a second for each gigabyte.
   */
  readonly once?: boolean;
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
  run(request: RunRequest): Promise<RunResult>;
  /** Runs one after the other, in one way there and back. */
  runEach(requests: readonly RunRequest[]): Promise<RunResult[]>;
  /** Frees the graph and its weights. */
  release(): Promise<void>;
}

/**
 * Runs graphs away from the event loop, one at a time in the order of the calls. Tensors that stay with the engine are
 * named by the caller, who frees them.
 */
export interface Engine {
  /** @throws FemoError E_RUNTIME if the model does not load */
  load(graph: GraphFile): Promise<Session>;
  /** Tensors of zeros, held under the given names. */
  holdZeros(dims: Readonly<Record<string, readonly number[]>>): Promise<void>;
  /** Frees held tensors; names that are not held are ignored. */
  free(names: readonly string[]): Promise<void>;
  /** Ends the engine when the run under way is over; calls not yet answered and later ones fail with E_RUNTIME. */
  close(): Promise<void>;
}
