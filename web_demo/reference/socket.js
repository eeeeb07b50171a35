// One socket: programs that hold it, and a console that sends messages and shows what comes.

import { Credentials } from "../credentials.js";
import { told } from "../faults.js";
import { text } from "../i18n.js";
import { CodePanel } from "./code-panel.js";
import { button, labelled, make, worded } from "./elements.js";
import { socketAddress, socketCode } from "./socket-examples.js";

const MOST_LINES = 200;
const LONGEST_LINE = 600;
const SCOPES = { speechChat: "conversation", streamSpeech: "recognition" };

export class Socket {
  #name;
  #path;
  #access;
  #socket = null;

  /** `access` {origin, key, project} as they are now. The messages that can be sent are those that the page shows. */
  constructor(article, { access, choice }) {
    this.#name = article.dataset.socket;
    this.#path = article.dataset.path;
    this.#access = access;
    this.panel = new CodePanel(choice, (language) => socketCode(language, this.#name, this.#where()), { curl: "websocat" });
    const messages = [...article.querySelectorAll('[data-way="up"]')].map((message) => [message.dataset.name, message.querySelector(".example")?.textContent ?? message.dataset.name]);
    const sendable = messages.filter(([name]) => name !== "binary_audio");
    this.select = make("select", {}, ...sendable.map(([name], index) => new Option(name, index)));
    this.editor = make("textarea", { rows: 6, spellcheck: false, className: "json" });
    const fill = () => (this.editor.value = sendable[this.select.value]?.[1] ?? "");
    this.select.addEventListener("change", fill);
    const typed = sendable.findIndex(([name]) => name === "conversation.message.create");
    this.select.value = Math.max(0, typed);
    fill();
    this.line = make("p", { className: "answer-line" });
    this.line.setAttribute("role", "status");
    this.log = make("pre", { className: "answer", hidden: true, tabIndex: 0 });
    const tell = (message) => this.#say("docs.failed", { message });
    this.connect = button("docs.connect", told(() => (this.#socket ? this.#socket.close(1000) : this.#open()), tell), { className: "primary" });
    this.send = button("docs.send", told(() => this.#send(), tell), { disabled: true });
    const [messageLabel] = labelled(text("docs.message"), this.select);
    messageLabel.dataset.i18n = "docs.message";
    this.editor.setAttribute("aria-label", text("docs.message"));
    const console = make("div", { className: "try" }, make("div", { className: "field" }, messageLabel, this.select), this.editor, make("div", { className: "row" }, this.connect, this.send), this.line, this.log);
    article.querySelector(".tried").append(this.panel.element, make("details", { className: "trying" }, worded("summary", "docs.try"), console));
  }

  draw() {
    this.panel.draw();
  }

  #where() {
    const { origin, key, project } = this.#access();
    return { origin, key, project: project || "default", path: this.#path };
  }

  async #open() {
    const { key } = this.#access();
    if (!key) {
      this.#say("docs.nokey");
      document.getElementById("key").focus();
      return;
    }
    const credentials = new Credentials();
    credentials.key = key;
    // A token, because addresses end up in logs.
    const token = await credentials.token(SCOPES[this.#name]);
    const socket = new WebSocket(socketAddress(this.#name, { ...this.#where(), key: token }));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.log.textContent = "";
    this.#change("docs.connecting");
    socket.onopen = () => this.#change("docs.connected");
    socket.onmessage = ({ data }) => this.#note("↓", typeof data === "string" ? data : text("docs.bytes", { count: data.byteLength }));
    socket.onclose = ({ code, reason }) => {
      this.#socket = null;
      this.#change("docs.closed", { code, reason });
    };
  }

  #send() {
    let message = this.editor.value.trim();
    try {
      message = JSON.stringify(JSON.parse(message));
    } catch {
      // Not every message is JSON: BYE is a word.
    }
    this.#socket.send(message);
    this.#note("↑", message);
  }

  #note(arrow, message) {
    const shown = message.replace(/("audioFrame":"[^"]{24})[^"]+"/, '$1…"').slice(0, LONGEST_LINE);
    const lines = [...this.log.textContent.split("\n").filter(Boolean), `${arrow}\u00a0${shown}`];
    this.log.hidden = false;
    this.log.textContent = lines.slice(-MOST_LINES).join("\n");
    this.log.scrollTop = this.log.scrollHeight;
  }

  #change(key, values) {
    this.#say(key, values);
    const words = this.#socket ? "docs.disconnect" : "docs.connect";
    this.connect.dataset.i18n = words;
    this.connect.textContent = text(words);
    this.send.disabled = this.#socket?.readyState !== WebSocket.OPEN;
  }

  #say(key, values) {
    this.line.textContent = text(key, values);
  }
}
