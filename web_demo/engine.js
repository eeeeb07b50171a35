// Joins the parts of a conversation: session (what it means), connection, microphone, loudspeaker, log. No DOM.
//
// It performs the session's effects and tells the page, by `change`, that something is to be drawn anew, by `notice`
// ({key, values}) what a person should read.

import { Microphone, microphoneFault } from "./audio/capture.js";
import { Loudspeaker } from "./audio/loudspeaker.js";
import { Conversation } from "./conversation.js";
import { EventLog, lengthByFormat } from "./log.js";
import { INTERRUPTED_SHOWN_MS, Session } from "./session.js";
import { SessionConfig } from "./session-config.js";

const MAX_WAITING_FRAMES = 300; // 12 s of speech while the connection is being made
const MICROPHONE_KEPT_MS = 30_000;

export class Engine extends EventTarget {
  #settings;
  #conversation;
  #microphone = null;
  #opening = null; // a promise, while the user is being asked
  #loudspeaker;
  #waiting = []; // frames for a connection that is not ready yet
  #sessionConfig;
  #findsTurns = false; // the server of this connection has agreed to find the ends of turns
  #audioClock = { sentMs: 0, atMs: 0 };
  #release = null;
  /** When the speech that a hands-free server last heard the end of was captured, on the page's clock. */
  #speechEndMs = null;

  constructor(settings, credentials) {
    super();
    this.#settings = settings;
    this.#sessionConfig = new SessionConfig(settings);
    this.session = new Session();
    this.handsFree = false;
    this.talking = false;
    this.connection = { status: "off" };
    this.log = this.#newLog();
    this.#loudspeaker = new Loudspeaker({
      sounding: (reply, delayMs) => this.#perform(this.session.sounding(reply, performance.now() + delayMs)),
      played: (...report) => this.#perform(this.session.played(...report)),
      drained: (...report) => this.#perform(this.session.drained(...report)),
      fault: (error) => this.#notice("fault.decode", { message: error.message }),
      held: () => this.#notice("sound.held"),
      silent: (key, values) => this.#notice(key, values),
    });
    this.#conversation = new Conversation({
      options: {
        token: () => credentials.token("conversation"),
        services: () => ({ model: settings.get("model") || "default", asr_easyllm_id: settings.get("asr") || "default", tts_easyllm_id: settings.get("tts") || "default" }),
        configure: (refusal) => this.#configure(refusal),
      },
      on: {
        status: (status, detail) => this.#connectionIs(status, detail),
        message: (message) => this.#received(message),
        wire: (from, frame) => {
          this.log.add(from, frame, performance.now());
          this.dispatchEvent(new Event("wire"));
        },
      },
    });
  }

  get state() {
    return this.session.state(performance.now());
  }

  /** Loudness of the reply that is played now. */
  get replyLevel() {
    return this.#loudspeaker.level;
  }

  connect() {
    this.#conversation.open();
  }

  /** Settings have changed, or the network is back: a new connection, which is told what was said. */
  reconnect() {
    this.#sessionConfig.renew();
    this.cancel();
    this.#conversation.reopen();
  }

  /** Push-to-talk: the user begins to speak. False: there is no microphone. */
  async talk() {
    if (this.talking || this.handsFree) return false;
    this.talking = true;
    this.#perform(this.session.talk(performance.now()));
    const isOpen = await this.#openSound();
    if (isOpen && this.talking) this.#conversation.open();
    else if (!isOpen) this.#talkEnded();
    return isOpen;
  }

  /** Push-to-talk: the user has finished. */
  finish() {
    if (!this.talking) return;
    if (this.#microphone) this.#sendAudio(this.#microphone.flush());
    this.#perform(this.session.finish(performance.now()));
    this.#talkEnded();
  }

  #talkEnded() {
    this.talking = false;
    this.#release = setTimeout(() => this.#closeMicrophone(), MICROPHONE_KEPT_MS);
    this.#changed();
  }

  /** Open the microphone for good, and let the server find the ends of turns; or close it. */
  async setHandsFree(on) {
    if (on === this.handsFree) return;
    this.handsFree = on;
    this.finish();
    this.#changed();
    if (on && !(await this.#openSound())) this.handsFree = false;
    if (!this.handsFree) this.#closeMicrophone();
    this.reconnect();
  }

  /** A typed turn. */
  async say(words) {
    await this.#loudspeaker.open(this.#format);
    this.#conversation.open();
    this.#perform(this.session.say(words, performance.now()));
  }

  cancel() {
    this.#perform(this.session.cancel(performance.now()));
  }

  forget() {
    this.#perform(this.session.forget(performance.now()));
  }

  // --- sound ---------------------------------------------------------------------------------------------------

  async #openSound() {
    clearTimeout(this.#release);
    await this.#loudspeaker.open(this.#format);
    if (this.#microphone) return true;
    this.#opening ??= this.#openMicrophone();
    const isOpen = await this.#opening;
    this.#opening = null;
    return isOpen;
  }

  async #openMicrophone() {
    try {
      this.#microphone = await Microphone.open({
        deviceId: this.#settings.get("microphone"),
        onFrame: (bytes) => this.#sendAudio(bytes),
        onLevel: (rms) => (this.talking || this.handsFree) && this.dispatchEvent(new CustomEvent("level", { detail: rms })),
        onEnded: () => this.#microphoneLost(),
      });
      this.dispatchEvent(new Event("microphone"));
      return true;
    } catch (error) {
      this.#notice(microphoneFault(error), { message: error.message });
      return false;
    }
  }

  /** Another microphone was chosen: taken at once where one is open. */
  async changeMicrophone() {
    if (!this.#microphone) return;
    this.#closeMicrophone();
    if (this.talking || this.handsFree) await this.#openSound();
  }

  #microphoneLost() {
    this.#closeMicrophone();
    this.#notice("microphone.lost");
    if (this.handsFree) this.setHandsFree(false);
    else this.finish();
  }

  #closeMicrophone() {
    this.#microphone?.close();
    this.#microphone = null;
  }

  get #format() {
    return this.#sessionConfig.format;
  }

  // --- connection ----------------------------------------------------------------------------------------------

  #configure(refusal) {
    if (refusal) {
      const field = this.#sessionConfig.refused(refusal);
      if (!field) return null;
      if (field === "turn_detection") this.#handsFreeRefused(refusal);
      else this.#notice("setting.refused", { message: refusal });
    }
    const wished = this.#sessionConfig.configuration({ history: this.session.history(), handsFree: this.handsFree });
    this.#findsTurns = "turn_detection" in wished;
    return wished;
  }

  /** Hands-free is wished, granted, and the connection is there. */
  get #listensAlways() {
    return this.handsFree && this.#findsTurns && this.connection.status === "ready";
  }

  #handsFreeRefused(message) {
    this.handsFree = false;
    this.#closeMicrophone();
    this.#notice("handsfree.refused", { message });
  }

  #connectionIs(status, detail) {
    this.connection = { status, ...detail };
    if (status === "connecting") this.#begin();
    if (status === "ready") this.#flush();
    if (status === "refused") this.#refused(detail.message);
    if (status === "off" && detail.message === "") this.#notice("fault.ended");
    if (status === "off" || status === "refused") this.#waiting = [];
    this.#changed();
  }

  /** The server knows nothing of the connection before, except what it will be told of its words. */
  #begin() {
    this.#loudspeaker.stop();
    this.session.reset();
    if (this.talking) this.session.talk(performance.now());
    this.#audioClock.sentMs = 0;
    this.log = this.#newLog();
  }

  async #flush() {
    if (this.#loudspeaker.isOpen) await this.#loudspeaker.open(this.#format); // the format may have been refused
    const frames = this.#waiting;
    this.#waiting = [];
    for (const frame of frames) this.#send(frame);
  }

  #refused(message) {
    this.handsFree = false;
    this.#closeMicrophone();
    if (/^(token|key)\b/.test(message)) this.#notice("fault.key", { key: true });
    else this.#notice("fault.refused", { message });
  }

  #newLog() {
    return new EventLog(performance.now(), (bytes) => lengthByFormat(this.#format)(bytes));
  }

  #received(message) {
    const nowMs = performance.now();
    this.#perform(this.session.receive(message, nowMs, this.#speechEndMs ?? nowMs));
    if (message.kind === "speech_stopped") this.#speechEndMs = this.#audioClock.atMs - (this.#audioClock.sentMs - message.atMs);
    if (message.kind === "speech_started") this.#speechEndMs = null;
  }

  #sendAudio(bytes) {
    if (!this.talking && !this.#listensAlways) return;
    if (bytes.length === 0 || !this.#send(bytes)) return;
    this.#audioClock.sentMs += bytes.length / 32; // 16 samples of two bytes
    this.#audioClock.atMs = performance.now();
  }

  #send(frame) {
    if (this.#conversation.send(frame)) return true;
    // Hands-free speech that finds no connection is lost; what a person says by hand or types waits a while.
    if (!this.handsFree && this.#waiting.length < MAX_WAITING_FRAMES) this.#waiting.push(frame);
    return false;
  }

  #perform(effects) {
    for (const effect of effects) {
      if (effect.send) this.#send(effect.send);
      // Without a loudspeaker a reply is read.
      if (effect.play !== undefined && !this.#loudspeaker.isOpen) this.session.read(effect.play);
      if (effect.play !== undefined) this.#loudspeaker.play(effect.play, effect.payload);
      if (effect.end !== undefined) this.#loudspeaker.end(effect.end);
      if (effect.notice) this.#notice(effect.notice);
      if (effect.stop) {
        this.#loudspeaker.stop();
        setTimeout(() => this.#changed(), INTERRUPTED_SHOWN_MS);
      }
    }
    this.#changed();
  }

  #notice(key, values = {}) {
    this.dispatchEvent(new CustomEvent("notice", { detail: { key, values } }));
  }

  #changed() {
    this.session.microphoneOpen = this.talking || this.#listensAlways;
    this.dispatchEvent(new Event("change"));
  }
}
