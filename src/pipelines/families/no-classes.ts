import { FemoError } from "../../errors.js";

/** @throws FemoError E_OPTION */
export async function noClasses({ name }: { readonly name: string }): Promise<never> {
  throw new FemoError("E_OPTION", `${name}: expected a model that draws classes, found one that draws prompts`);
}
