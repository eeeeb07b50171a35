// Carries the microphone's samples to the page in blocks of about 20 ms. It computes nothing: resampling is on the
// page's side, where a stall delays samples but loses none, and where tests without a browser reach it.

const BLOCK_MS = 20;

class CaptureProcessor extends AudioWorkletProcessor {
  #block = new Float32Array(Math.round((sampleRate * BLOCK_MS) / 1000));
  #filled = 0;

  process([input]) {
    const samples = input[0];
    if (!samples) return true; // the source is paused or gone
    let taken = 0;
    while (taken < samples.length) {
      const part = samples.subarray(taken, taken + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block, [this.#block.buffer]);
        this.#block = new Float32Array(Math.round((sampleRate * BLOCK_MS) / 1000));
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", CaptureProcessor);
