import { adaptedFemoMethod } from "./adapted-femo.js";
import { calibratedMethod } from "./calibrated.js";
import { chipmunkMethod } from "./chipmunk.js";
import { dbCacheMethod } from "./db-cache.js";
import { deepCacheMethod } from "./deep-cache.js";
import { deltaDitMethod } from "./delta-dit.js";
import { ducaMethod } from "./duca.js";
import { femoMethod } from "./femo.js";
import { firstBlockMethod } from "./first-block.js";
import { focaMethod } from "./foca.js";
import { foraMethod } from "./fora.js";
import { hiCacheMethod } from "./hi-cache.js";
import { hindsightMethod } from "./hindsight.js";
import { magCacheMethod } from "./mag-cache.js";
import { newtonMethod } from "./newton.js";
import { noneMethod } from "./none.js";
import { taylorSeerMethod } from "./taylor-seer.js";
import { teaCacheMethod } from "./tea-cache.js";
import { tocaMethod } from "./toca.js";

/** The methods there are, a line each. */
export const methodTable = [
  noneMethod,
  calibratedMethod,
  foraMethod,
  taylorSeerMethod,
  newtonMethod,
  femoMethod,
  adaptedFemoMethod,
  hindsightMethod,
  tocaMethod,
  ducaMethod,
  hiCacheMethod,
  focaMethod,
  teaCacheMethod,
  magCacheMethod,
  firstBlockMethod,
  dbCacheMethod,
  deltaDitMethod,
  deepCacheMethod,
  chipmunkMethod,
] as const;
