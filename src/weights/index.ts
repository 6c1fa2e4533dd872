export { type ByteSource, blobByteSource, memoryByteSource } from "./byte-source.js";
export { Checkpoint, type OpenFile, openCheckpoint } from "./checkpoint.js";
export type { DerivedTensor } from "./derived.js";
export { DTYPE_BITS, type TensorDtype, toFloat32 } from "./dtypes.js";
export { type FolderSource, memoryFolder, subfolder } from "./folder-source.js";
export { matrixInBits, unpacked } from "./in-bits.js";
export { tensorInHalf } from "./in-half.js";
export type { LoraAdapter, LoraTarget, MergedLora } from "./lora.js";
export {
  type ComponentClass,
  type ComponentOptions,
  MEASURED_FILES,
  type ModelComponent,
  type ModelFolder,
  type ModelFolderOptions,
  type ModelIndex,
  openComponent,
  openModelFolder,
} from "./model-folder.js";
export { type NpyArray, type NpyHeader, type NpzFile, readNpy, readNpz } from "./npy.js";
export {
  type PackedMatrix,
  type PackedPart,
  type PackedSource,
  packedMatrix,
  packedParts,
  partName,
} from "./packed.js";
export { type BlockFormat, type BlockSize, blocksOf, type QuantizedMatrix } from "./quantize.js";
export { readSafetensorsHeader, type SafetensorsFile, type TensorInfo } from "./safetensors.js";
export { componentFiles, pipelineFiles } from "./select.js";
export {
  type CheckpointTensor,
  filesOf,
  isDerived,
  isPacked,
  leavesOf,
  recipeOf,
  rowsOf,
  storedBytes,
} from "./tensors.js";
export type { TorchFile } from "./torch.js";
export type { ExpectedTensor, VerifyOptions } from "./verify.js";
