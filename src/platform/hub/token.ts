/** Whether a text can be a token of the Hub: one word of printable ASCII. */
export const isToken = (text: string): boolean => /^[\x21-\x7e]+$/.test(text);
