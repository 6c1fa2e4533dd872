/** What a server answered, however it was asked. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** The body as it arrives, to be read once or left early. @throws TransientError if it stops coming */
  chunks(): AsyncGenerator<Uint8Array, void>;
  /** Instead of reading the body. */
  discard(): Promise<void>;
}
