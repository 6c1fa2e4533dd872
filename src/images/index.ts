export { gridImage, type RgbImage } from "./image.js";
export { type GenerationParameters, parametersText } from "./parameters.js";
export { cropPlanes, fromRgb, type Planes, pastePlanes, toRgb } from "./planes.js";
export { decodePng, encodePng } from "./png.js";
export {
  type BilinearFilter,
  cropCentre,
  resizeBicubic,
  resizeBicubicFloat,
  resizeBilinear,
  resizePlane,
} from "./resample.js";
export { checkTileSize, type TileOptions, tiledDecode } from "./tiled-decode.js";
