// What the page asks of the server, from the settings; without what this server has refused.

import { FORMATS, isPlayable } from "./audio/decoders.js";
import { configuration } from "./protocol.js";

export class Wishes {
  #settings;
  #canPlay;
  #refused = new Set();

  /** `canPlay(format)`: whether this browser can. */
  constructor(settings, canPlay = isPlayable) {
    this.#settings = settings;
    this.#canPlay = canPlay;
  }

  /** Ask for everything again: the settings have changed, or it may be another server. */
  renew() {
    this.#refused.clear();
  }

  /** The format that replies come in. */
  get format() {
    const wished = this.#settings.get("format");
    return this.#refused.has("format") || !this.#canPlay(wished) ? FORMATS[0] : wished;
  }

  /** Leave out what a refusal names by the last part of its path. Returns its name; null: there is nothing to leave out. */
  refused(message) {
    const field = /(\w+):/.exec(message)?.[1];
    if (!field || this.#refused.has(field)) return null;
    this.#refused.add(field);
    return field;
  }

  /** The configuration. `history`: what was said over the connection before. */
  configuration({ history, handsFree }) {
    const get = (name) => this.#settings.get(name);
    const unlessRefused = (field, value) => (this.#refused.has(field) ? undefined : value);
    const system = get("system") ? [{ role: "system", content: get("system") }] : [];
    return configuration({
      messages: [...system, ...history],
      voice: unlessRefused("voice", get("voice")),
      format: this.format,
      speechRate: unlessRefused("speechRate", get("speechRate")),
      asrMode: get("asrMode"),
      turnDetection: handsFree ? unlessRefused("turn_detection", this.#turnDetection()) : undefined,
      downlink: get("binaryDownlink") ? unlessRefused("downlink", "binary") : undefined,
    });
  }

  #turnDetection() {
    const get = (name) => this.#settings.get(name);
    return { type: "server_vad", threshold: get("threshold"), silence_duration_ms: get("silenceMs"), min_interruption_ms: get("interruptionMs") };
  }
}
