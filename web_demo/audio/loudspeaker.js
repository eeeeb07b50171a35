// A loudspeaker that may be missing: opens players, one for each format, and tells once why there is no sound.

import { Player, soundFault } from "./player.js";

export class Loudspeaker {
  #player = null;
  #opening = null; // a promise
  #isSilent = false; // the browser gives no sound, and the person has been told
  #on;

  /** `on` is the player's, see Player.open; `on.silent(key, values)` names a text that says why nothing can be heard. */
  constructor(on) {
    this.#on = on;
  }

  /** Whether replies can be sounded. */
  get isOpen() {
    return this.#player !== null;
  }

  /** Loudness of what is sounded now. */
  get level() {
    return this.#player?.level() ?? 0;
  }

  /** Be ready for replies of `format`, as far as the browser lets us; call it in a user's gesture. Never raises. */
  async open(format) {
    if (this.#player?.format === format && this.#player.isOpen) return;
    this.#opening ??= this.#replace(format);
    await this.#opening;
  }

  play(reply, payload) {
    this.#player?.play(reply, payload);
  }

  end(reply) {
    return this.#player?.end(reply);
  }

  stop() {
    this.#player?.stop();
  }

  async #replace(format) {
    const former = this.#player;
    try {
      this.#player = await Player.open(format, this.#on);
      this.#isSilent = false;
      await former?.close();
    } catch (error) {
      if (this.#player === former) this.#player = null;
      if (!this.#isSilent) this.#on.silent(soundFault(error), { message: error.message });
      this.#isSilent = true;
    }
    this.#opening = null;
  }
}
