import { FemoError } from "../../../errors.js";
import { quote } from "../../../weights/text.js";
import type { ModelId } from "../../hub/model-id.js";
import { NotFoundError } from "../../hub/retry.js";
import type { HubSettings } from "./settings.js";

/** What was asked for, for messages. */
export interface Wanted {
  readonly id: ModelId;
  /** Path of a file in the repository; without it the repository itself was asked about. */
  readonly file?: string;
}

/**
 * What an answer other than "here it is" means, and what to do about it.
 * @param askedInstead the Hub that answered, if the endpoint redirects there
 * @returns NotFoundError if there is no such model; other FemoErrors for other reasons
 */
export function explainRefusal(
  { status, headers }: Pick<Response, "status" | "headers">,
  { id, file }: Wanted,
  settings: HubSettings,
  askedInstead?: string,
): FemoError {
  const { tokenSource, tokenWithheld } = settings;
  const { repo, revision } = id;
  const endpoint = askedInstead ?? settings.endpoint;
  const token = askedInstead === undefined ? settings.token : undefined; // it was not sent there
  const page = `${endpoint}/${repo}`;
  const what = file === undefined ? repo : `${repo}/${file}`;
  const code = headers.get("x-error-code");
  const said = headers.get("x-error-message");
  const there =
    askedInstead === undefined ? "" : `set HF_ENDPOINT to ${askedInstead}, for tokens go nowhere else, and `;
  const signIn = tokenWithheld
    ? `unset HF_HUB_DISABLE_IMPLICIT_TOKEN, which keeps back the token in ${tokenSource}`
    : `${there}set HF_TOKEN to a token of that account (${endpoint}/settings/tokens)`;

  if (code === "GatedRepo") {
    const advice =
      token === undefined
        ? `Sign in and accept the licence at ${page}, then ${signIn}.`
        : `The token in ${tokenSource} was sent: accept the licence at ${page} with its account and wait until access ` +
          "is granted, or give the token the right to read gated repositories.";
    return new FemoError("E_ACCESS", `${what}: the repository is gated. ${advice}`);
  }
  if (code === "RevisionNotFound") {
    return new FemoError(
      "E_FILE",
      `${repo}: has no revision ${quote(revision)}. Its branches and tags: ${page}/tree/main; without "@" it is main.`,
    );
  }
  if (code === "EntryNotFound" || (status === 404 && file !== undefined && code !== "RepoNotFound")) {
    return new FemoError(
      "E_FILE",
      `${what}: no such file at revision ${quote(revision)}. What there is: ${page}/tree/${revision}.`,
    );
  }
  if (status === 401 && token !== undefined && code !== "RepoNotFound") {
    return new FemoError(
      "E_ACCESS",
      `${what}: the token in ${tokenSource} is not accepted. Make a new one at ${endpoint}/settings/tokens, or remove it: ` +
        "public models need none.",
    );
  }
  // The Hub does not tell strangers whether a private repository exists.
  if (code === "RepoNotFound" || status === 404 || status === 401) {
    const advice =
      token === undefined
        ? `if it is private, ${signIn}.`
        : `if it is private, the account of the token in ${tokenSource} has no access to it.`;
    const message = `${repo}: found no such model at ${endpoint}. Check its name; ${advice}`;
    return status === 401 ? new FemoError("E_ACCESS", message) : new NotFoundError(message);
  }
  if (status === 403) {
    return new FemoError(
      "E_ACCESS",
      `${what}: access is forbidden${said ? ` (${quote(said)})` : ""}. Check at ${page} what your account may see` +
        `${token === undefined ? `, then ${signIn}` : `, and what the token in ${tokenSource} may do`}.`,
    );
  }
  const advice =
    status === 429 || status >= 500 ? "Try again later: what is there already is kept." : "Is HF_ENDPOINT a Hub?";
  return new FemoError(
    "E_NETWORK",
    `${what}: ${endpoint} answered ${status}${said ? ` (${quote(said)})` : ""}. ${advice}`,
  );
}
