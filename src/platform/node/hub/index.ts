export { formatModelId, type ModelId, parseModelId } from "../../hub/model-id.js";
export { type DownloadOptions, downloadFiles, openHubModel } from "./hub.js";
export type { Environment } from "./settings.js";
