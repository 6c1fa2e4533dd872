/** Machine-readable kinds of failure; stable across versions. */
export type FemoErrorCode =
  | "E_OPTION" // an option or argument is outside what is allowed
  | "E_CONFIG" // a config file is malformed or asks for what is not supported
  | "E_FILE" // a file is missing, truncated or malformed
  | "E_WEIGHT" // a tensor is missing, surplus, or has the wrong shape or type
  | "E_IMAGE" // an image is malformed
  | "E_NETWORK" // a server cannot be reached, or answers with what it should not
  | "E_ACCESS" // a server refuses: a licence is to be accepted, or a token is missing or has no right
  | "E_GRAPH" // a graph was built from values that do not fit each other
  | "E_RUNTIME"; // the execution engine failed or is closed

/** Every error femo throws on purpose. The message says what was wrong, where, what was expected and what to do. */
export class FemoError extends Error {
  readonly code: FemoErrorCode;

  constructor(code: FemoErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "FemoError";
    this.code = code;
  }
}
