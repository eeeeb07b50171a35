// The key: it comes in the address's fragment (which a browser never sends) or is typed, and stays in memory. What goes
// into a WebSocket's address, where proxies and logs may see it, is a short-lived token that the server gives for it.

const TOKENS_PATH = "api/open-apis/projects/default/tokens";

/** The server does not accept the key: trying again is of no use. */
export class KeyRefused extends Error {
  refused = true;
}

export class Credentials {
  #key = "";
  #serverHasTokens = true;
  // Whose the tokens of this page are: only so may one of them resume a stream that another one has begun.
  #user = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  constructor(fragment = "") {
    this.readFragment(fragment);
  }

  get present() {
    return this.#key !== "";
  }

  /** The Authorization header of a request. */
  get authorization() {
    return `Bearer ${this.#key}`;
  }

  /** Take the key of `#key=...`, if there is one. */
  readFragment(fragment) {
    const key = new URLSearchParams(fragment.replace(/^#/, "")).get("key");
    if (key) this.#key = key;
    return Boolean(key);
  }

  set key(key) {
    this.#key = key.trim();
  }

  /**
   * What may stand in an address: a token that opens one connection to `endpoint` ("conversation" or "recognition") from
   * this page's origin. A server without tokens gets the key itself. Raises KeyRefused; TypeError when the server
   * cannot be reached.
   */
  async token(endpoint, fetchFrom = fetch) {
    if (!this.#serverHasTokens) return this.#key;
    const response = await fetchFrom(TOKENS_PATH, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.#key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ endpoints: [endpoint], origin: globalThis.location?.origin, user: this.#user }),
      signal: AbortSignal.timeout?.(10_000),
    });
    if (response.status === 404 || response.status === 405) {
      this.#serverHasTokens = false;
      return this.#key;
    }
    if (response.status === 401 || response.status === 403) throw new KeyRefused("key");
    if (!response.ok) throw new TypeError(`${response.status}`);
    const { token } = await response.json();
    return token;
  }
}
