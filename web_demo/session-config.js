// The session configuration that the page sends: built from its settings, less the fields that this server refused.

import { FORMATS, isPlayable } from "./audio/decoders.js";
import { configuration } from "./protocol.js";

export class SessionConfig {
  #settings;
  #canPlay;
  #refused = new Set();

  /** `canPlay(format)` returns whether this browser can decode the format. */
  constructor(settings, canPlay = isPlayable) {
    this.#settings = settings;
    this.#canPlay = canPlay;
  }

  /** Request every field again. Call it when the settings change or the page connects anew. */
  renew() {
    this.#refused.clear();
  }

  /** The audio format of replies. */
  get format() {
    const wished = this.#settings.get("format");
    return this.#refused.has("format") || !this.#canPlay(wished) ? FORMATS[0] : wished;
  }

  /** Drop the field that a refusal names (the last part of its path). Returns the field's name, or null if there is none to drop. */
  refused(message) {
    const field = /(\w+):/.exec(message)?.[1];
    if (!field || this.#refused.has(field)) return null;
    this.#refused.add(field);
    return field;
  }

  /** Build the configuration. `history` holds the messages of the previous connection. */
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
