// A stream-speech connection: audio goes up as fast as it comes, results come down, BYE asks for the last of them.

import { decodeRecognition } from "./protocol.js";

const PATH = "api/open-apis/projects/default/easyllms/stream-speech";
const MAX_UNSENT_BYTES = 64_000; // two seconds: a file must not fill the browser's memory

export class Recognition {
  #socket;

  /** `onResult(result)`, `onClose(code, reason)`. */
  constructor({ token, service, onResult, onClose, connect = (url) => new WebSocket(url) }) {
    const url = new URL(PATH, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const query = { easyllm_id: service, apikey: token, format: "pcm", sample_rate: 16000, heartbeat: "true", words: "json" };
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    this.#socket = connect(url.href);
    this.ready = new Promise((resolve) => {
      this.#socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if ("is_sentence_end" in message) onResult(decodeRecognition(message));
        else if (message.status === "ok") resolve(true);
      };
      this.#socket.onclose = ({ code, reason }) => {
        resolve(false);
        onClose(code, reason);
      };
    });
  }

  get isOpen() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  send(bytes) {
    if (this.isOpen) this.#socket.send(bytes);
  }

  /** Resolves when the network has taken most of what was sent, or the connection is gone. */
  async drained() {
    while (this.isOpen && this.#socket.bufferedAmount > MAX_UNSENT_BYTES) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  finish() {
    if (this.isOpen) this.#socket.send("BYE");
  }

  close() {
    this.#socket.close();
  }
}
