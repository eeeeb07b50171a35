// What the user has chosen: kept in localStorage, except the key, which is never kept.

import { FORMATS } from "./audio/decoders.js";

const STORED_AS = "voicechat.settings";

export const DEFAULTS = Object.freeze({
  language: "", // the browser's
  theme: "", // the system's
  model: "default",
  asr: "default",
  tts: "default",
  voice: "",
  speechRate: 1,
  format: FORMATS[0],
  binaryDownlink: false,
  microphone: "",
  asrMode: "online",
  system: "",
  silenceMs: 500,
  interruptionMs: 200,
  threshold: 0.5,
  knowledgeBase: "default", // an agent, or a base that one names
  codeLanguage: "curl", // of the examples in the reference
});

export class Settings extends EventTarget {
  #values;
  #store;

  constructor(store = browserStore()) {
    super();
    this.#store = store;
    this.#values = { ...DEFAULTS, ...sound(readStored(store)) };
  }

  get(name) {
    return this.#values[name];
  }

  /** Change one; a `change` event names it. */
  set(name, value) {
    if (this.#values[name] === value) return;
    this.#values[name] = value;
    try {
      this.#store?.setItem(STORED_AS, JSON.stringify(this.#values));
    } catch {
      // A full or forbidden store: the choice lasts as long as the page.
    }
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }
}

/** Where the browser keeps things; where it forbids that, even to look raises. */
function browserStore() {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined;
  }
}

function readStored(store) {
  try {
    return JSON.parse(store?.getItem(STORED_AS)) ?? {};
  } catch {
    return {};
  }
}

/** Of stored values those that are known and of the right kind: an older version of the page may have written them. */
function sound(stored) {
  return Object.fromEntries(Object.entries(stored).filter(([name, value]) => name in DEFAULTS && typeof value === typeof DEFAULTS[name]));
}
