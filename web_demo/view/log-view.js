// The event log on the screen: the last rows that pass the filter; paused, it stands still while the log goes on.

import { text } from "../i18n.js";
import { download } from "./download.js";

const MAX_ROWS = 200;

export class LogView {
  #log;
  #parts;
  #filter = "";
  #paused = false;
  #due = false;

  /** `log()` gives the current log: a new page of it may begin at any time. */
  constructor(log, parts) {
    this.#log = log;
    this.#parts = parts;
    parts.filter.addEventListener("input", () => {
      this.#filter = parts.filter.value.trim().toLowerCase();
      this.#draw();
    });
    parts.pause.addEventListener("click", () => {
      this.#paused = !this.#paused;
      parts.pause.setAttribute("aria-pressed", this.#paused);
      this.#draw();
    });
    parts.save.addEventListener("click", () => {
      const about = "Recorded by the web demo.";
      download("voicechat.jsonl", "application/jsonl", this.#log().toJsonLines(about, performance.now()));
    });
  }

  /** Something was added: drawn with the next frame, however much comes until then. */
  update() {
    if (this.#due || this.#paused || this.#parts.rows.closest("[hidden]")) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  /** Draw it now: it has become visible. */
  show() {
    this.#draw();
  }

  #draw() {
    if (this.#paused) return;
    const rows = merged(this.#log().entries.slice(-4 * MAX_ROWS)).filter((entry) => this.#filter === "" || wordsOf(entry).toLowerCase().includes(this.#filter));
    this.#parts.rows.replaceChildren(...rows.slice(-MAX_ROWS).map(rowOf));
    this.#parts.scroller.scrollTop = this.#parts.scroller.scrollHeight;
  }
}

/** Runs of audio frames, and of playback reports, are one row each: dozens a second would hide everything else. */
function merged(entries) {
  const rows = [];
  for (const entry of entries) {
    const last = rows.at(-1);
    const lastMs = last?.line.client_audio_ms;
    if (lastMs !== undefined && "client_audio_ms" in entry.line) {
      rows[rows.length - 1] = { ...last, line: { client_audio_ms: lastMs + entry.line.client_audio_ms }, bytes: last.bytes + entry.bytes };
    } else if (last && isPlaybackReport(last) && isPlaybackReport(entry)) rows[rows.length - 1] = entry;
    else rows.push(entry);
  }
  return rows;
}

function isPlaybackReport({ line }) {
  return line.client?.event_type === "conversation.audio.played";
}

function wordsOf({ line }) {
  if ("client_audio_ms" in line) return text("log.audio", { ms: line.client_audio_ms });
  const message = line.client ?? line.server;
  if (!message) return JSON.stringify(Object.values(line)[0]);
  if (message.audio_ms !== undefined) return `${text("log.audio", { ms: message.audio_ms })} ${message.id ?? ""}`;
  const { event_type: type, ...rest } = message;
  return type ? `${type} ${JSON.stringify(rest)}` : JSON.stringify(rest);
}

function rowOf(entry) {
  const row = document.createElement("tr");
  row.className = entry.from;
  const cells = [(entry.atMs / 1000).toFixed(3), entry.from === "client" ? "↑" : "↓", wordsOf(entry), entry.bytes < 10_000 ? `${entry.bytes}` : `${Math.round(entry.bytes / 1000)}k`];
  row.append(...cells.map((content) => Object.assign(document.createElement("td"), { textContent: content })));
  return row;
}
