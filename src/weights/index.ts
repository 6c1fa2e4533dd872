export { type ByteSource, memoryByteSource } from "./byte-source.js";
export { Checkpoint, type OpenFile, openCheckpoint } from "./checkpoint.js";
export type { DerivedTensor } from "./derived.js";
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
export { COMPUTABLE, type ExpectedTensor, type VerifyOptions } from "./verify.js";
