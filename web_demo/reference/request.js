// A request of the reference as a value: what the reader has filled in, on its way to an example or to the server. Pure.

export const PLACEHOLDER_KEY = "YOUR_KEY";

/**
 * @typedef {{method: string, url: string, key: string | null, headers: Object<string, string>, body: Body}} Request
 * `key` null: none is needed; "": the reader has none yet.
 * @typedef {{kind: "none"} | {kind: "json", text: string} | {kind: "form", fields: {name: string, isFile: boolean, value: string}[]}
 *   | {kind: "bytes", name: string}} Body
 */

/** Put parameters where they belong: `{path, query, header}`, each [name, value] pairs; empty ones are left out. */
export function addressOf(origin, path, { path: inPath = [], query = [] } = {}) {
  let address = path;
  for (const [name, value] of inPath) address = address.replace(`{${name}}`, encodeURIComponent(value) || `{${name}}`);
  const given = query.filter(([, value]) => value !== "");
  const text = given.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&");
  return `${origin}${address}${text && `?${text}`}`;
}

export function authorization(key) {
  return `Bearer ${key || PLACEHOLDER_KEY}`;
}

/** Headers of a request: the key, what was filled in, and the type of a body that does not bring its own. */
export function headersOf({ key, headers = {}, body }) {
  const types = { json: "application/json", bytes: "application/octet-stream" };
  return {
    ...(key === null ? {} : { Authorization: authorization(key) }),
    ...(types[body.kind] ? { "Content-Type": types[body.kind] } : {}),
    ...headers,
  };
}

/** Whether an answer to this is a stream of events, as far as the request tells. */
export function isStreamed({ url, body }) {
  return /-stream(\?|$)|voice-output/.test(url) || (body.kind === "json" && /"stream"\s*:\s*true/.test(body.text));
}

/** The file that an answer is best saved as; null for answers that are read. */
export function savedAs({ url, body }) {
  if (!/audio\/speech|synthesize-audio(\?|$)/.test(url)) return null;
  const format = /"(?:response_)?format"\s*:\s*"(?:OGG_)?(mp3|wav|pcm|opus)/i.exec(body.text ?? "")?.[1] ?? "mp3";
  return `speech.${format.toLowerCase()}`;
}
