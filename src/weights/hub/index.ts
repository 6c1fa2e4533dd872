export { type DownloadOptions, type DownloadProgress, downloadFiles, openHubModel } from "./hub.js";
export { formatModelId, type ModelId, parseModelId } from "./model-id.js";
export { componentFiles, pipelineFiles } from "./select.js";
export type { Environment } from "./settings.js";
