/**
 * Tensors that are left out of a file because another one has the same bytes. `safetensors.torch.save_model` names them
 * in the free text entries of its header, and huggingface_hub in those of an index: {left out: kept}.
 * @param entries free text of any kind; those that name no tensor are passed over
 */
export function tiedTensors<T extends { readonly name: string }>(
  tensors: Iterable<T>,
  entries: Iterable<[string, unknown]>,
): T[] {
  const stored = new Map(Array.from(tensors, (tensor) => [tensor.name, tensor]));
  return [...entries].flatMap(([name, kept]) => {
    const twin = typeof kept === "string" && name !== "format" && !stored.has(name) ? stored.get(kept) : undefined;
    return twin ? [{ ...twin, name }] : [];
  });
}
