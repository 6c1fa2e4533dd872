import * as ort from "onnxruntime-web/jspi";
import { serve } from "./serve.js";

serve(ort);
