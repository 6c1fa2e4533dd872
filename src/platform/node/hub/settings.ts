import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { FemoError } from "../../../errors.js";
import { isToken } from "../../hub/token.js";
import { fileError, isMissing } from "../file.js";
import { type Proxies, proxiesOf } from "./proxy.js";

/** The variables that Python's huggingface_hub reads too, with the same meaning. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the Hub is, where its files are kept, and who asks. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** The folder that holds a folder for each repository. */
  readonly cache: string;
  readonly token: string | undefined;
  /** Where the token is from, for messages. */
  readonly tokenSource: string;
  /** There is a token, which HF_HUB_DISABLE_IMPLICIT_TOKEN forbids to send. */
  readonly tokenWithheld: boolean;
  /** The variable that forbids to use the network, if one does. */
  readonly offline: "HF_HUB_OFFLINE" | "TRANSFORMERS_OFFLINE" | undefined;
  /** False: the snapshot holds the files themselves, as it does where symbolic links are impossible. */
  readonly symlinks: boolean;
  /** A server that sends nothing for so long is taken for dead. */
  readonly timeoutMs: number;
  readonly proxies: Proxies;
}

/**
 * Reads the environment: HF_HOME, HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE), HF_TOKEN (or HUGGING_FACE_HUB_TOKEN, or the
 * file HF_TOKEN_PATH), HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE),
 * HF_HUB_DISABLE_SYMLINKS, HF_HUB_DOWNLOAD_TIMEOUT and the proxies' (`proxiesOf`). Empty ones count as absent.
 * @throws FemoError E_OPTION if an address or a token is none
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const home = env.HOME || homedir();
  const expand = (path: string): string =>
    path
      .replace(/^~(?=$|[\\/])/, () => home)
      .replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
  const hfHome = expand(env.HF_HOME || join(env.XDG_CACHE_HOME || join(home, ".cache"), "huggingface"));
  const seconds = Number(env.HF_HUB_DOWNLOAD_TIMEOUT);
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || "https://huggingface.co"),
    cache: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(hfHome, "hub")),
    ...(await tokenOf(env, expand(env.HF_TOKEN_PATH || join(hfHome, "token")))),
    offline: offlineBy(env),
    symlinks: !isTrue(env.HF_HUB_DISABLE_SYMLINKS),
    timeoutMs: seconds > 0 ? 1000 * seconds : 30_000,
    proxies: proxiesOf(env),
  };
}

const isTrue = (value: string | undefined): boolean => /^(?:1|on|yes|true)$/i.test(value ?? "");

function offlineBy(env: Environment): HubSettings["offline"] {
  const variable = env.HF_HUB_OFFLINE ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE";
  return isTrue(env[variable]) ? variable : undefined;
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    // The text is not repeated: it may hold a password.
    throw new FemoError(
      "E_OPTION",
      'HF_ENDPOINT: expected an address such as "https://huggingface.co", found another.',
    );
  }
  return url.href.replace(/\/+$/, "");
}

async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    if (isMissing(cause)) return "";
    throw fileError(file, cause);
  }
}

async function tokenOf(
  env: Environment,
  file: string,
): Promise<Pick<HubSettings, "token" | "tokenSource" | "tokenWithheld">> {
  const variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].find((name) => env[name]?.trim());
  const tokenSource = variable ?? file;
  const token = (variable ? (env[variable] ?? "") : await readIfThere(file)).trim();
  if (token !== "" && !isToken(token)) {
    throw new FemoError(
      "E_OPTION",
      `${tokenSource}: expected one token, such as "hf_...", found spaces or characters that no token has.`,
    );
  }
  const withheld = isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN);
  return { token: withheld ? undefined : token || undefined, tokenSource, tokenWithheld: withheld && token !== "" };
}
