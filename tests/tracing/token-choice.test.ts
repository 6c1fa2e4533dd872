import { describe, expect, test } from "vitest";
import { Graph } from "../../src/graph/index.js";
import { columnMass, nextAge, tokenScores } from "../../src/tracing/token-choice.js";
import { engineForTests, evaluate, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { meanAttention, scoresOf } from "./token-reference.js";

const engine = engineForTests();
const [B, T] = [2, 24];
const grid = [4, 6] as const;
const mass = floats([B, T], numbers(noise([B, T], 1)).map(Math.abs));
const age = floats(
  [B, T, 1],
  Array.from({ length: B * T }, (_, i) => i % 5),
);

test("how much attention each key gets is the mean of the softmax map over heads and queries", async () => {
  const [q, k] = [noise([B, 5, 6], 2), noise([B, 7, 6], 3)];
  const graph = new Graph();
  graph.output("y", columnMass(graph.input("q", ["batch", 5, 6]), graph.input("k", ["batch", 7, 6]), 2));
  const found = numbers((await evaluate(engine, graph, { q, k })).y);
  const wanted = [0, 1].flatMap((b) =>
    meanAttention(numbers(q), numbers(k), { b, queries: 5, keys: 7, width: 6, heads: 2 }),
  );
  expect(relativeError(found, wanted)).toBeLessThan(1e-6);
});

describe("the score of a token", () => {
  const scores = async (lambda: number, bonus: number, cell: number | undefined) => {
    const graph = new Graph();
    const input = { age: graph.input("age", ["batch", T, 1]), scoring: graph.input("scoring", [2]), grid, cell };
    graph.output("y", tokenScores(graph.input("mass", ["batch", T]), input));
    return numbers((await evaluate(engine, graph, { mass, age, scoring: floats([2], [lambda, bonus]) })).y);
  };

  test.each([
    [0, 0, undefined],
    [0.25, 0, 2],
    [0, 0.6, 1],
    [0.1, 0.6, 2],
  ])("with weight %d of its age, bonus %d, cells of %s", async (lambda, bonus, cell) => {
    const options = { lambda, bonus, grid, cell: cell ?? 1 };
    const wanted = [0, 1].flatMap((b) => {
      const own = (values: readonly number[]) => values.slice(b * T, (b + 1) * T);
      return scoresOf(own(numbers(mass)), own(numbers(age)), options);
    });
    expect(relativeError(await scores(lambda, bonus, cell), wanted)).toBeLessThan(1e-6);
  });

  test("cells that do not fill the grid are an error that says so", async () => {
    expect(await femoError("E_OPTION", () => scores(0, 1, 4))).toContain("cell: expected a divisor of 4 and 6");
  });
});

test("chosen tokens are new, the others a step older", async () => {
  const graph = new Graph();
  graph.output("y", nextAge(graph.input("age", ["batch", T, 1]), graph.input("i", ["batch", "k?"], "int64")));
  const found = numbers((await evaluate(engine, graph, { age, i: integers([B, 2], [3, 0, 23, 7]) })).y);
  expect(found).toEqual(numbers(age).map((value, i) => ([0, 3, T + 7, T + 23].includes(i) ? 0 : value + 1)));
});
