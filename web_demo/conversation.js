// The connection of a conversation: opens it, configures it, keeps it alive, and opens it again when it is lost.
// It carries frames and judges none but the two that open it; what they mean is session.js's affair.

import { decode, request } from "./protocol.js";

const PATH = "api/open-apis/projects/default/chat/speech-chat";
const PING_MS = 20_000;
const UNANSWERED = 2; // so many pings without any answer: the network is gone though nobody said so
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 20_000;
/** After these a new connection may do better: lost, fault of the server, restart, full. */
const WORTH_RETRYING = new Set([1001, 1005, 1006, 1011, 1012, 1013]);

/** A random delay below a bound that doubles: many clients of one server do not return all at once. */
export function retryDelayMs(attempt, random = Math.random) {
  const bound = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return Math.round(bound * (0.5 + random() / 2));
}

export class Conversation {
  #socket = null;
  #attempt = 0;
  #retry = null;
  #ping = null;
  #unanswered = 0; // pings, or times of waiting to be let in, since anything was heard
  #wanted = false;
  #generation = 0;
  #refusal = "";

  /**
   * `options.token()` gives what goes into the address; `options.services()` the query; `options.configure(refusal)`
   * the configuration, or null to give up (`refusal` is the server's reason for not taking the one before).
   * `on.status(status, detail)`: connecting, ready, waiting {retryMs}, refused {message}, off. `on.message(message)` gets all else.
   * `on.wire(direction, data)` sees each frame for the log.
   */
  constructor({ options, on, connect = (url) => new WebSocket(url), clock = globalThis }) {
    this.options = options;
    this.on = on;
    this.connect = connect;
    this.clock = clock;
    this.status = "off";
  }

  get ready() {
    return this.status === "ready";
  }

  open() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempt = 0;
    this.#dial();
  }

  /** End it, and do not come back. */
  close() {
    this.#wanted = false;
    this.#hangUp();
    this.#become("off");
  }

  /** A new connection, at once: the configuration has changed, or the network is back. */
  reopen() {
    if (!this.#wanted) return this.open();
    this.#hangUp();
    this.#attempt = 0;
    this.#dial();
  }

  /** Send a message, or audio as bytes. False: not connected, it is lost. */
  send(message) {
    if (!this.ready) return false;
    this.#put(message);
    return true;
  }

  #put(message) {
    const frame = ArrayBuffer.isView(message) ? message : JSON.stringify(message);
    this.#socket.send(frame);
    this.on.wire("client", frame);
  }

  async #dial() {
    const generation = ++this.#generation;
    this.#become("connecting");
    try {
      const token = await this.options.token();
      if (generation === this.#generation) this.#attach(this.connect(this.#address(token)));
    } catch (error) {
      if (generation !== this.#generation) return;
      // A browser that may not connect there (SecurityError, SyntaxError) never may.
      if (error.refused || error instanceof DOMException) this.#giveUp(error.message);
      else this.#again();
    }
  }

  #address(token) {
    const url = new URL(PATH, globalThis.location?.href ?? "http://localhost/");
    url.protocol = url.protocol.replace("http", "ws");
    for (const [name, value] of Object.entries({ ...this.options.services(), token })) url.searchParams.set(name, value);
    return url.href;
  }

  #attach(socket) {
    this.#socket = socket;
    this.#refusal = "";
    socket.binaryType = "arraybuffer";
    // A socket that was hung up still tells its end: only the current one is listened to.
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#closed(code, reason);
    this.#unanswered = 0;
    this.#ping = this.clock.setInterval(() => this.#keepAlive(), PING_MS);
  }

  #receive(data) {
    this.#unanswered = 0;
    this.on.wire("server", data);
    const message = decode(data);
    if (message.kind === "answer" && message.to === "open") return this.#created(message);
    if (message.kind === "answer" && message.to === "update") return this.#updated(message);
    if (this.ready) this.on.message(message);
  }

  #created({ status, message }) {
    if (status === 0) return this.#configure("");
    this.#refusal = message;
    // 50301: full or about to stop; the code that closes the connection says whether to come back.
    if (status !== 50301) this.#giveUp(message);
  }

  #configure(refusal) {
    const configuration = this.options.configure(refusal);
    if (configuration) this.#put(request.update(configuration));
    else this.#giveUp(refusal);
  }

  #updated({ status, message }) {
    if (status !== 0) return this.#configure(message);
    this.#attempt = 0;
    this.#become("ready", { message });
  }

  /** Only what was asked and not answered counts: the time during which the machine slept does not. */
  #keepAlive() {
    if (this.#unanswered >= UNANSWERED) return this.#closed(1006, "");
    this.#unanswered += 1;
    if (this.ready) this.#put(request.ping());
  }

  #closed(code, reason) {
    const refusal = reason || this.#refusal;
    this.#hangUp();
    if (this.#wanted && WORTH_RETRYING.has(code)) this.#again();
    else if (this.#wanted) this.#giveUp(code === 1000 ? "" : refusal || `${code}`);
  }

  #again() {
    const retryMs = retryDelayMs(this.#attempt);
    this.#attempt += 1;
    this.#become("waiting", { retryMs });
    this.#retry = this.clock.setTimeout(() => this.#dial(), retryMs);
  }

  #giveUp(message) {
    this.#wanted = false;
    this.#hangUp();
    this.#become(message ? "refused" : "off", { message });
  }

  #hangUp() {
    this.#generation += 1;
    this.clock.clearTimeout(this.#retry);
    this.clock.clearInterval(this.#ping);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #become(status, detail = {}) {
    this.status = status;
    this.on.status(status, detail);
  }
}
