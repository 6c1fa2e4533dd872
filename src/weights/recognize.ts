/** What often lies where weights should: told by the first bytes of a file, with what to do. */
export function recognize(start: Uint8Array): string | undefined {
  const text = String.fromCharCode(...start.subarray(0, 64));
  if (text.startsWith("version https://git-lfs")) {
    return 'a Git LFS pointer. Fetch the file itself: "git lfs pull", or download it from its page.';
  }
  if (/^\s*<(!doctype|html|\?xml)/i.test(text)) {
    return "a web page. The download failed: check its address and repeat it.";
  }
  if (startsAsGguf(start)) return "a GGUF file. Open it as a checkpoint.";
  return undefined;
}

/** True for the first bytes of a zip, the container of `torch.save`. */
export const startsAsZip = (start: Uint8Array): boolean =>
  start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;

/** True for the first bytes of a GGUF file. */
export const startsAsGguf = (start: Uint8Array): boolean =>
  start[0] === 0x47 && start[1] === 0x47 && start[2] === 0x55 && start[3] === 0x46;
