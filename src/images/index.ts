export { gridImage, type RgbImage } from "./image.js";
export { type GenerationParameters, parametersText } from "./parameters.js";
export { decodePng, encodePng } from "./png.js";
