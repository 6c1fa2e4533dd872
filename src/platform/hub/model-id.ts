/** A model on the Hub, as it was at a revision. */
export interface ModelId {
  /** "owner/name" */
  readonly repo: string;
  /** A branch, a tag, a reference such as "refs/pr/1", or the hash of a commit. */
  readonly revision: string;
}

const REPO = /^\w(?:[\w.-]{0,94}\w)?\/\w(?:[\w.-]{0,94}\w)?$/;
const REVISION = /^\w[\w.+-]*(?:\/\w[\w.+-]*)*$/;

/**
 * `owner/name` or `owner/name@revision`; the revision is "main" unless told. The Hub's own rules for names apply, so
 * that no name leads out of the cache's folder.
 * @returns undefined if the text has another form, such as that of a path
 */
export function parseModelId(text: string): ModelId | undefined {
  const at = text.indexOf("@");
  const repo = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? "main" : text.slice(at + 1);
  const wrong = !REPO.test(repo) || /--|\.\.|\.git$/.test(repo) || !REVISION.test(revision) || revision.includes("..");
  return wrong ? undefined : { repo, revision };
}

/** As a person would write it. */
export const formatModelId = ({ repo, revision }: ModelId): string =>
  revision === "main" ? repo : `${repo}@${revision}`;

/** True for the full hash of a commit, whose files never change. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);
