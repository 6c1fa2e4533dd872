import type { DiffusionPipeline, SubjectOptions } from "../pipelines/index.js";
import { listedOptions, subjectTypes } from "../pipelines/subject-options.js";

const subjectKeys = Object.keys(subjectTypes) as (keyof SubjectOptions)[];
const listed: ReadonlySet<keyof SubjectOptions> = new Set(listedOptions);

/** What a study draws, an image after the other. */
export interface StudySubjects {
  readonly count: number;
  /** Those from one to before another, as a request names them. */
  slice(first?: number, end?: number): SubjectOptions;
  /** So many of these, again from the first behind the last. */
  inTurns(count: number): StudySubjects;
}

/**
 * What the options name, or what the model shows where they name nothing.
 * @param copies of each
 */
export function studySubjects(
  { subjectOption, examples }: Pick<DiffusionPipeline, "subjectOption" | "examples">,
  options: SubjectOptions,
  copies = 1,
): StudySubjects {
  const named = [options[subjectOption] ?? examples].flat() as readonly (string | number)[];
  return subjectsInOrder(
    options,
    [subjectOption, named],
    named.flatMap((_, i) => new Array<number>(copies).fill(i)),
  );
}

function subjectsInOrder(
  options: SubjectOptions,
  [subjectOption, named]: readonly [keyof SubjectOptions, readonly (string | number)[]],
  order: readonly number[],
): StudySubjects {
  return {
    count: order.length,
    slice(first, end) {
      const chosen = order.slice(first, end);
      const part = (key: keyof SubjectOptions, value: unknown) =>
        listed.has(key) && Array.isArray(value) && value.length === named.length ? chosen.map((i) => value[i]) : value;
      const entries = subjectKeys.flatMap((key) =>
        options[key] === undefined ? [] : [[key, part(key, options[key])]],
      );
      return { ...Object.fromEntries(entries), [subjectOption]: chosen.map((i) => named[i]) };
    },
    inTurns: (count) =>
      subjectsInOrder(
        options,
        [subjectOption, named],
        Array.from({ length: count }, (_, i) => order[i % order.length] as number),
      ),
  };
}
