import { FemoError } from "../../../errors.js";

/** Proxies for the two kinds of addresses, and the hosts that need none, as a list with commas. */
export interface Proxies {
  readonly "http:": string | undefined;
  readonly "https:": string | undefined;
  readonly none: string;
}

/**
 * HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in lower or upper case; lower case is looked at first, as curl and Python do.
 * @throws FemoError E_OPTION if a proxy's address is none, or of another kind than http, https and socks5
 */
export function proxiesOf(env: Readonly<Record<string, string | undefined>>): Proxies {
  const proxy = (name: string): string | undefined => {
    const variable = [name, name.toUpperCase()].find((candidate) => env[candidate]?.trim());
    if (variable === undefined) return undefined;
    const text = (env[variable] as string).trim();
    const address = text.includes("://") ? text : `http://${text}`;
    if (URL.canParse(address) && /^(?:https?|socks5?):$/.test(new URL(address).protocol)) return address;
    // The text is not repeated: it may hold a password.
    throw new FemoError("E_OPTION", `${variable}: expected an address such as "http://proxy:3128", found another.`);
  };
  return { "http:": proxy("http_proxy"), "https:": proxy("https_proxy"), none: env.no_proxy || env.NO_PROXY || "" };
}

type Fetch = (url: URL, init: RequestInit) => Promise<Response>;

/** True if there is a proxy for such addresses. */
const isProxied = (proxies: Proxies, { protocol }: URL): boolean =>
  proxies[protocol as "http:" | "https:"] !== undefined;

/** Where the fault may be, for messages about a connection. */
export const placesToCheck = (proxies: Proxies, url: URL): string =>
  isProxied(proxies, url)
    ? `the network and the proxy (${url.protocol.slice(0, -1).toUpperCase()}_PROXY)`
    : "the network";

const fetches = new Map<string, Promise<Fetch>>();

/** `fetch` by way of the proxy for such addresses, if there is one: Node's own knows no proxies. */
export function fetchThrough(proxies: Proxies, url: URL): Fetch | Promise<Fetch> {
  if (!isProxied(proxies, url)) return fetch;
  const key = JSON.stringify(proxies);
  const known = fetches.get(key) ?? makeFetch(proxies);
  fetches.set(key, known);
  return known;
}

async function makeFetch(proxies: Proxies): Promise<Fetch> {
  // Only loaded here: most need no proxy. Its own fetch, because Node's takes agents of its own version only.
  const { EnvHttpProxyAgent, fetch } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent({
    httpProxy: proxies["http:"] ?? "", // empty, or it would look at the process's variables
    httpsProxy: proxies["https:"] ?? "",
    noProxy: proxies.none,
    proxyTunnel: false, // plain http is asked for in full, for many proxies tunnel to port 443 alone
  });
  type Init = Parameters<typeof fetch>[1];
  return (url, init) => fetch(url, { ...init, dispatcher } as Init) as unknown as Promise<Response>;
}
