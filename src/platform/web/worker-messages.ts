import type { Call } from "../../runtime/executor.js";
import type { Answer } from "../../runtime/remote-engine.js";

/** How a worker is to compute. It is the first message to it. */
export interface Setup {
  readonly device: "wasm" | "webgpu";
  readonly threads: number;
  /** Where the runtime's WebAssembly lies, if not beside the worker. */
  readonly wasm: string | undefined;
}

export type ToWorker = { readonly setup: Setup } | { readonly id: number; readonly call: Call };

/** What a worker has found. */
export interface Ready {
  /** Of the GPU, as the browser describes it. */
  readonly gpu?: string;
  /** Whether the GPU computes in float16. */
  readonly float16?: boolean;
}

export type FromWorker =
  | { readonly ready: Ready }
  /** It cannot compute so; another worker may. */
  | { readonly failed: string }
  /** The GPU is gone, and all that was on it. */
  | { readonly lost: string }
  | Answer;
