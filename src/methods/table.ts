import { adaptedFemoMethod } from "./adapted-femo.js";
import { femoMethod } from "./femo.js";
import { foraMethod } from "./fora.js";
import { newtonMethod } from "./newton.js";
import { noneMethod } from "./none.js";
import { taylorSeerMethod } from "./taylor-seer.js";

/** The methods there are, a line each. */
export const methodTable = [
  noneMethod,
  foraMethod,
  taylorSeerMethod,
  newtonMethod,
  femoMethod,
  adaptedFemoMethod,
] as const;
