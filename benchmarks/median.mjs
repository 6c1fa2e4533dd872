/**
 * The upper one of the two in the middle where there are two; undefined of none.
 *
 * @param {readonly number[]} list
 */
export const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
