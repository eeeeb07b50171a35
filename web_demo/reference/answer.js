// An answer of the server on the screen: as text while it comes, and what of it is audio to be heard.

import { text } from "../i18n.js";

const MOST_BYTES = 32 * 1024 * 1024;
const MOST_CHARACTERS = 200_000;
const LONG_VALUE = /("audioFrame":"[^"]{24})[^"]+"/g;
const SIGNATURES = [
  ["audio/mpeg", [0x49, 0x44, 0x33]],
  ["audio/mpeg", [0xff]],
  ["audio/wav", [0x52, 0x49, 0x46, 0x46]],
  ["audio/ogg", [0x4f, 0x67, 0x67, 0x53]],
];

/** What a browser can play, by how it begins; "" for bare samples. */
export function audioType(bytes) {
  return SIGNATURES.find(([, start]) => start.every((byte, index) => bytes[index] === byte))?.[0] ?? "";
}

/** The audio in a stream of events: the bytes of all `audioFrame`s, joined. */
export function audioOfEvents(events) {
  const frames = [...events.matchAll(/"audioFrame":\s*"([^"]+)"/g)].map(([, frame]) => atob(frame));
  return Uint8Array.from(frames.join(""), (character) => character.charCodeAt(0));
}

/** JSON with line feeds; other text as it is. */
export function pretty(content) {
  try {
    return JSON.stringify(JSON.parse(content), null, 2);
  } catch {
    return content;
  }
}

/** Shows answers in `parts` {line, content, extras}. */
export class AnswerView {
  #parts;
  #addresses = [];

  constructor(parts) {
    this.#parts = parts;
  }

  /** Forget the former answer. */
  clear() {
    for (const address of this.#addresses) URL.revokeObjectURL(address);
    this.#addresses = [];
    this.#parts.line.textContent = "";
    this.#parts.content.textContent = "";
    this.#parts.content.hidden = true;
    this.#parts.extras.replaceChildren();
  }

  /** Show a message of the page itself. */
  say(words) {
    this.#parts.line.textContent = words;
  }

  /** Show `response` while it arrives; `startedMs` on the page's clock. */
  async show(response, startedMs) {
    const type = response.headers.get("Content-Type") ?? "";
    const isBinary = type.startsWith("audio/");
    const chunks = [];
    let received = 0;
    let written = "";
    const decoder = new TextDecoder();
    const reader = response.body?.getReader();
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true };
      if (done) break;
      received += value.length;
      if (received > MOST_BYTES) {
        await reader.cancel();
        break;
      }
      if (isBinary) chunks.push(value);
      else {
        written += decoder.decode(value, { stream: true });
        this.#write(written);
      }
      this.#sum(response, type, received, startedMs);
    }
    this.#sum(response, type, received, startedMs);
    if (isBinary) return this.#offer(new Blob(chunks, { type: type.split(";")[0] }), type);
    const isEvents = type.startsWith("text/event-stream");
    this.#write(isEvents ? written : pretty(written));
    const audio = isEvents ? audioOfEvents(written) : new Uint8Array(0);
    if (audio.length) this.#offer(new Blob([audio], { type: audioType(audio) }), audioType(audio));
  }

  #sum({ status, statusText }, type, received, startedMs) {
    const size = received < 10_000 ? `${received} B` : `${Math.round(received / 1000)} kB`;
    this.#parts.line.textContent = [`${status} ${statusText}`.trim(), `${Math.round(performance.now() - startedMs)} ms`, size, type].join(" · ");
    this.#parts.line.dataset.ok = status < 400;
  }

  #write(content) {
    const shown = content.slice(0, MOST_CHARACTERS).replace(LONG_VALUE, '$1…"');
    this.#parts.content.hidden = shown === "";
    this.#parts.content.textContent = shown;
    this.#parts.content.scrollTop = this.#parts.content.scrollHeight;
  }

  /** A player for what can be played, and a link to save it. */
  #offer(blob, type) {
    const address = URL.createObjectURL(blob);
    this.#addresses.push(address);
    const ending = { "audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg" }[type.split(";")[0]];
    const link = Object.assign(document.createElement("a"), { href: address, download: `speech.${ending ?? "pcm"}`, textContent: text("docs.save") });
    const player = ending ? [Object.assign(document.createElement("audio"), { controls: true, src: address })] : [];
    this.#parts.extras.replaceChildren(...player, link);
  }
}
