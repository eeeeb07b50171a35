// The loudspeaker: takes a reply's payloads in the format that was asked for, tells what of it has been heard.

import { keepAwake } from "./awake.js";
import { openDecoder, rateOf } from "./decoders.js";
import { rootMeanSquare } from "./pcm.js";

export class Player {
  #context;
  #worklet;
  #analyser;
  #window;
  #reply = null;
  #decoder = null;
  #queuedSamples = 0;

  /**
   * Open the loudspeaker for replies of one format; after a user's gesture, else browsers keep it silent.
   * `on.sounding(reply, delayMs)`, `on.played(reply, playedMs, queuedMs)`, `on.drained(reply, playedMs)`, `on.fault(error)`,
   * `on.held()` when a reply comes while the browser keeps the sound back. Raises what the browser raises: see soundFault.
   */
  static async open(format, on) {
    const player = new Player();
    try {
      await player.#start(format, on);
    } catch (error) {
      await player.#context?.close();
      throw error;
    }
    return player;
  }

  /** Whether it can still be used: a device that is lost may close it. */
  get isOpen() {
    return this.#context.state !== "closed";
  }

  async #start(format, on) {
    this.format = format;
    this.on = on;
    this.#context = new AudioContext({ sampleRate: rateOf(format), latencyHint: "interactive" });
    // Not waited for: without a gesture, or during a phone call, that would be for ever.
    keepAwake(this.#context);
    if (!this.#context.audioWorklet) throw new DOMException("no AudioWorklet", "SecurityError");
    await this.#context.audioWorklet.addModule(new URL("player-worklet.js", import.meta.url));
    this.#worklet = new AudioWorkletNode(this.#context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#worklet.port.onmessage = ({ data }) => this.#told(data);
    this.#analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    this.#window = new Float32Array(this.#analyser.fftSize);
    this.#worklet.connect(this.#analyser).connect(this.#context.destination);
  }

  /** Queue a payload of a reply; the first one of another reply begins that. */
  play(reply, payload) {
    if (reply !== this.#reply) {
      this.#decoder?.close();
      if (this.#context.state !== "running") this.on.held();
      this.#reply = reply;
      this.#queuedSamples = 0;
      this.#decoder = openDecoder(this.format, (samples) => this.#queue(reply, samples), this.on.fault);
    }
    this.#decoder.feed(payload);
  }

  /** No more of this reply will come. */
  async end(reply) {
    if (reply !== this.#reply) return;
    await this.#decoder.end();
    if (reply === this.#reply) this.#worklet.port.postMessage({ type: "end", reply });
  }

  /** Silence, within one render quantum of the message's arrival; what is being decoded is thrown away. */
  stop() {
    this.#decoder?.close();
    this.#decoder = null;
    this.#reply = null;
    this.#worklet.port.postMessage({ type: "stop" });
  }

  /** Loudness of what is being rendered now. */
  level() {
    this.#analyser.getFloatTimeDomainData(this.#window);
    return rootMeanSquare(this.#window);
  }

  async close() {
    this.stop();
    if (this.isOpen) await this.#context.close();
  }

  #queue(reply, samples) {
    if (reply !== this.#reply) return;
    this.#queuedSamples += samples.length;
    this.#worklet.port.postMessage({ type: "audio", reply, samples }, [samples.buffer]);
  }

  #told({ type, reply, samples }) {
    if (type === "started") this.on.sounding(reply, this.#delayMs);
    if (type === "position") this.on.played(reply, this.#heardMs(samples), this.#toMs(this.#queuedSamples));
    if (type === "drained") this.on.drained(reply, this.#toMs(samples));
  }

  /** Rendered is not heard: the device still holds its own buffer. */
  #heardMs(samples) {
    return Math.max(0, this.#toMs(samples) - this.#delayMs);
  }

  get #delayMs() {
    return ((this.#context.outputLatency || this.#context.baseLatency || 0) * 1000);
  }

  #toMs(samples) {
    return (samples / this.#context.sampleRate) * 1000;
  }
}

/** The key of a text that says why nothing can be heard. */
export function soundFault(error) {
  return error.name === "SecurityError" || !globalThis.isSecureContext ? "sound.insecure" : "sound.failed";
}
