import type { TensorInfo } from "./safetensors.js";

/** What `torch.compile`, FSDP and activation checkpointing put before the names of the module they wrap, at any depth. */
const WRAPPERS = /(?<=^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.(?=.)/g;
/** The same of (Distributed)DataParallel. A module of the model itself may have this name, but does not hold all of it. */
const PARALLEL = /^module\.(?=.)/;

/** Tensors by the names that they have in the model, when training saved it inside wrappers. */
export function unwrapped(tensors: readonly TensorInfo[]): readonly TensorInfo[] {
  const names = tensors.map(({ name }) => withoutWrappers(name));
  while (names.length > 0 && names.every((name) => PARALLEL.test(name))) {
    for (const [i, name] of names.entries()) names[i] = withoutWrappers(name.replace(PARALLEL, ""));
  }
  return tensors.map((tensor, i) => ({ ...tensor, name: names[i] as string }));
}

const withoutWrappers = (name: string): string => name.replace(WRAPPERS, "");
