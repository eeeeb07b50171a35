// Samples: floats in [-1, 1] in the page, s16le on the wire. Pure.

/** Floats to s16le bytes; what is too loud is clipped, not wrapped. */
export function toPcm16(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, index) => view.setInt16(index * 2, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true));
  return new Uint8Array(view.buffer);
}

/** s16le bytes to floats. An odd byte at the end is left out: PcmDecoder carries it. */
export function fromPcm16(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, index) => view.getInt16(index * 2, true) / 32768);
}

/** Root mean square: 0 silence, 1 a full-scale square wave. */
export function rootMeanSquare(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}

export function concatenate(first, second) {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

/** Cuts a stream into pieces of one size; the rest waits for more. */
export class Blocks {
  #size;
  #rest = new Float32Array(0);

  constructor(size) {
    this.#size = size;
  }

  push(samples) {
    const all = new Float32Array(this.#rest.length + samples.length);
    all.set(this.#rest);
    all.set(samples, this.#rest.length);
    const whole = Math.floor(all.length / this.#size) * this.#size;
    this.#rest = all.slice(whole);
    return Array.from({ length: whole / this.#size }, (_, index) => all.subarray(index * this.#size, (index + 1) * this.#size));
  }

  /** Give what is left, and begin anew. */
  flush() {
    const rest = this.#rest;
    this.#rest = new Float32Array(0);
    return rest;
  }
}
