export { type DownloadOptions, downloadFiles, openHubModel } from "./hub.js";
export { formatModelId, type ModelId, parseModelId } from "./model-id.js";
export type { Environment } from "./settings.js";
