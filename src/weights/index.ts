export { type ByteSource, memoryByteSource } from "./byte-source.js";
export { Checkpoint, type OpenFile, openCheckpoint } from "./checkpoint.js";
// Files in the names and types of others: GGUF's blocks, 8-bit floating point with scales.
export { DTYPE_BITS, isBlockType, type TensorDtype, toFloat32 } from "./dtypes.js";
export { type FolderSource, memoryFolder } from "./folder-source.js";
export { BLOCK_TYPES, type BlockType, type PackedBlocks, packedBlocks } from "./gguf-blocks.js";
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
export { BLOCK, blocksOf, scalesOf } from "./quantize.js";
export { dequantizedTensor, type RenamedWeights, Renaming, type Rows } from "./renamed.js";
export { readSafetensorsHeader, type SafetensorsFile, type TensorInfo } from "./safetensors.js";
export { type ScaledCheckpoint, separateScales } from "./scaled-float8.js";
export { componentFiles, pipelineFiles } from "./select.js";
export { readTorchFile, type TorchFile } from "./torch.js";
export type { ExpectedTensor, VerifyOptions } from "./verify.js";
export { COMPUTABLE } from "./verify.js";
