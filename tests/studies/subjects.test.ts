import { expect, test } from "vitest";
import { studySubjects } from "../../src/studies/subjects.js";

const model = { subjectOption: "prompt", examples: ["a fox", "two lemons", "a frog"] } as const;

test("a study takes parts of lists that go with its prompts, and pairs of numbers whole", () => {
  const image = { width: 8, height: 8, data: new Uint8Array(192) };
  const options = {
    ...{ prompt: ["a", "b"], prompt2: ["c", "d"], negativePrompt: "e" },
    ...{ image: [image], originalSize: [64, 48] as const, cropsCoordsTopLeft: [1, 2] as const },
  };
  const { count, slice } = studySubjects(model, options, 2);
  expect(count).toBe(4);
  expect(slice(1, 3)).toEqual({ ...options, prompt: ["a", "b"], prompt2: ["c", "d"] });
  expect(slice(2)).toEqual({ ...options, prompt: ["b", "b"], prompt2: ["d", "d"] });
});

test("without any it draws the model's examples", () => {
  expect(studySubjects(model, { height: 64 }).slice(1)).toEqual({ prompt: ["two lemons", "a frog"], height: 64 });
});
