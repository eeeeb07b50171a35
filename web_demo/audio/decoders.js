// One decoder per reply, by the format that the server was asked for: each reply is one continuous stream, so a frame
// never begins anew and there is nothing to click. PCM costs no latency and no library; MP3 and Opus are WebCodecs'.

import { Mp3Frames } from "./mp3-frames.js";
import { OggPackets } from "./ogg-packets.js";
import { concatenate, fromPcm16 } from "./pcm.js";

/** What the settings offer, best latency first. */
export const FORMATS = ["PCM_24000HZ_MONO_16BIT", "WAV_24000HZ_MONO_16BIT", "MP3_24000HZ_MONO_64KBPS", "OGG_OPUS_48KHZ_MONO_32KBPS"];

/** The rate at which a format's samples come out of its decoder. */
export function rateOf(format) {
  const [, rate, kilo] = /_(\d+)(K?)HZ_/.exec(format);
  return format.startsWith("OGG_OPUS") ? 48000 : Number(rate) * (kilo ? 1000 : 1);
}

/** Whether this browser can decode a format. */
export function isPlayable(format) {
  return /^(PCM|WAV)_/.test(format) || "AudioDecoder" in globalThis;
}

/**
 * Open a decoder: `feed(bytes)`, `end()` resolves when all samples are out, `close()` throws the rest away.
 * `onSamples(Float32Array)` gets mono samples in order, `onFault(error)` what cannot be decoded.
 */
export function openDecoder(format, onSamples, onFault) {
  if (format.startsWith("MP3_")) return new CompressedDecoder(new Mp3Frames(), onSamples, onFault);
  if (format.startsWith("OGG_OPUS_")) return new CompressedDecoder(new OggPackets(), onSamples, onFault);
  return new PcmDecoder(format.startsWith("WAV_"), onSamples);
}

const WAV_CHUNK_HEADER_BYTES = 8;

class PcmDecoder {
  #rest = new Uint8Array(0);
  #headerAwaited;
  #onSamples;

  constructor(hasHeader, onSamples) {
    this.#headerAwaited = hasHeader;
    this.#onSamples = onSamples;
  }

  feed(bytes) {
    const all = concatenate(this.#rest, bytes);
    const start = this.#headerAwaited ? dataOffset(all) : 0;
    if (start < 0) {
      this.#rest = all;
      return;
    }
    this.#headerAwaited = false;
    const whole = start + ((all.length - start) & ~1);
    this.#rest = all.slice(whole);
    if (whole > start) this.#onSamples(fromPcm16(all.subarray(start, whole)));
  }

  async end() {}

  close() {}
}

/** Where a WAV file's samples begin, or -1 when the header is not complete yet. */
export function dataOffset(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 12; // past "RIFF", its size and "WAVE"
  while (at + WAV_CHUNK_HEADER_BYTES <= bytes.length) {
    if (view.getUint32(at) === 0x64617461) return at + WAV_CHUNK_HEADER_BYTES; // "data"
    at += WAV_CHUNK_HEADER_BYTES + view.getUint32(at + 4, true);
  }
  return -1;
}

class CompressedDecoder {
  #framing;
  #decoder;
  #timestampUs = 0;
  #onFault;

  constructor(framing, onSamples, onFault) {
    this.#framing = framing;
    this.#onFault = onFault;
    this.#decoder = new AudioDecoder({ output: (data) => onSamples(monoSamples(data)), error: onFault });
  }

  feed(bytes) {
    try {
      for (const packet of this.#framing.push(bytes)) this.#decode(packet);
    } catch (error) {
      this.#onFault(error);
    }
  }

  #decode(packet) {
    if (this.#decoder.state === "unconfigured") this.#decoder.configure(this.#framing.configuration);
    this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: this.#timestampUs, duration: packet.durationUs, data: packet.data }));
    this.#timestampUs += packet.durationUs;
  }

  async end() {
    if (this.#decoder.state !== "configured") return;
    try {
      await this.#decoder.flush();
    } catch (error) {
      if (error.name !== "AbortError") this.#onFault(error); // aborted: closed while it was flushing
    }
  }

  close() {
    if (this.#decoder.state !== "closed") this.#decoder.close();
  }
}

function monoSamples(data) {
  const samples = new Float32Array(data.numberOfFrames);
  data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
  data.close();
  return samples;
}
