// Sounds replies: a jitter buffer that starts when it holds enough, and that a stop empties within one render quantum.
//
// In:  {type: "audio", reply, samples}, {type: "end", reply}, {type: "stop"}
// Out: {type: "started" | "position" | "drained" | "stopped", reply, samples}, {type: "starved"}
// `samples` counts what has been rendered of the reply, at the context's rate. No imports: not every browser has them here.

const FIRST_TARGET_MS = 60;
const LONGEST_TARGET_MS = 400;
const REPORT_MS = 100;
const FADE_SAMPLES = 64; // shorter than a quantum: a cut sounds like a cut, not like a click

class PlayerProcessor extends AudioWorkletProcessor {
  #queue = []; // {samples, at} of the current reply
  #queued = 0;
  #reply = null;
  #ended = false;
  #rendered = 0;
  #reported = 0;
  #waiting = true;
  #last = 0; // the last sample that was rendered, to fade from
  #targetMs = FIRST_TARGET_MS;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#receive(data);
  }

  #receive(message) {
    if (message.type === "stop") return this.#stop();
    if (message.reply !== this.#reply) this.#begin(message.reply);
    if (message.type === "end") this.#ended = true;
    else {
      this.#queue.push({ samples: message.samples, at: 0 });
      this.#queued += message.samples.length;
    }
  }

  #begin(reply) {
    this.#queue = [];
    this.#queued = 0;
    this.#reply = reply;
    this.#ended = false;
    this.#rendered = 0;
    this.#reported = 0;
    this.#waiting = true;
  }

  #stop() {
    if (this.#reply !== null) this.#tell("stopped");
    this.#begin(null);
  }

  #tell(type) {
    this.port.postMessage({ type, reply: this.#reply, samples: this.#rendered });
  }

  process(_inputs, [[output]]) {
    const wanted = this.#reply === null || !this.#mayPlay() ? 0 : Math.min(output.length, this.#queued);
    if (wanted > 0 && this.#rendered === 0) this.#tell("started");
    for (let written = 0; written < wanted; ) written += this.#take(output, written);
    this.#rendered += wanted;
    this.#fade(output, wanted);
    if (this.#reply !== null) this.#report();
    return true;
  }

  #mayPlay() {
    const enough = this.#queued >= (this.#targetMs * sampleRate) / 1000 || this.#ended;
    if (this.#waiting && enough) this.#waiting = false;
    return !this.#waiting;
  }

  #take(output, written) {
    const piece = this.#queue[0];
    const part = piece.samples.subarray(piece.at, piece.at + output.length - written);
    output.set(part, written);
    piece.at += part.length;
    this.#queued -= part.length;
    if (piece.at === piece.samples.length) this.#queue.shift();
    return part.length;
  }

  /** After the last sample of a stream that broke off, go to zero instead of jumping there. */
  #fade(output, from) {
    if (from > 0) this.#last = output[from - 1];
    if (from === output.length) return;
    const length = Math.min(FADE_SAMPLES, output.length - from);
    for (let index = 0; index < length; index += 1) output[from + index] = this.#last * (1 - (index + 1) / length);
    this.#last = 0;
  }

  #report() {
    if (this.#queued === 0 && this.#ended) {
      this.#tell("drained");
      this.#begin(null);
    } else if (this.#queued === 0 && !this.#waiting) {
      // The network is later than the buffer is deep: wait for more, and from now on keep more.
      this.#waiting = true;
      this.#targetMs = Math.min(LONGEST_TARGET_MS, this.#targetMs * 1.5);
      this.port.postMessage({ type: "starved" });
    } else if (this.#rendered - this.#reported >= (REPORT_MS * sampleRate) / 1000) {
      this.#reported = this.#rendered;
      this.#tell("position");
    }
  }
}

registerProcessor("player", PlayerProcessor);
