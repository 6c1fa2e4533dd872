export { type ByteSource, memoryByteSource } from "./byte-source.js";
export { Checkpoint, type OpenFile, openCheckpoint } from "./checkpoint.js";
export { DTYPE_BITS, type TensorDtype, toFloat32 } from "./dtypes.js";
export { type FolderSource, memoryFolder } from "./folder-source.js";
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
export { readSafetensorsHeader, type SafetensorsFile, type TensorInfo } from "./safetensors.js";
export { componentFiles, pipelineFiles } from "./select.js";
export { readTorchFile, type TorchFile } from "./torch.js";
export type { ExpectedTensor, VerifyOptions } from "./verify.js";
