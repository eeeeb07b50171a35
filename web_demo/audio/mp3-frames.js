// Cuts an MP3 stream into its frames (ISO/IEC 11172-3 section 2.4.1, 13818-3 for the low rates). Pure.

import { concatenate } from "./pcm.js";

const BITRATES_KBPS = {
  1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};
const RATES_HZ = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] }; // by version bits
const HEADER_BYTES = 4;

/** Read a frame header: {bytes, rateHz, channels, durationUs}; null where none begins. */
export function readHeader(bytes, at) {
  if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe6) !== 0xe2) return null; // eleven set bits, layer III
  const version = (bytes[at + 1] >> 3) & 3;
  const rateHz = RATES_HZ[version]?.[(bytes[at + 2] >> 2) & 3];
  const bitrate = BITRATES_KBPS[version === 3 ? 1 : 2][bytes[at + 2] >> 4];
  if (!rateHz || !bitrate) return null;
  const samples = version === 3 ? 1152 : 576;
  const padding = (bytes[at + 2] >> 1) & 1;
  return {
    bytes: Math.floor((samples / 8) * ((bitrate * 1000) / rateHz)) + padding,
    rateHz,
    channels: bytes[at + 3] >> 6 === 3 ? 1 : 2,
    durationUs: Math.round((samples / rateHz) * 1e6),
  };
}

export class Mp3Frames {
  #rest = new Uint8Array(0);
  /** For AudioDecoder.configure, known with the first frame. */
  configuration = null;

  push(bytes) {
    const all = concatenate(this.#rest, bytes);
    const frames = [];
    let at = tagLength(all);
    if (at > all.length) {
      this.#rest = all;
      return frames;
    }
    while (at + HEADER_BYTES <= all.length) {
      const header = readHeader(all, at);
      if (!header) {
        at += 1; // not a frame: look for the next one
        continue;
      }
      if (at + header.bytes > all.length) break;
      this.configuration ??= { codec: "mp3", sampleRate: header.rateHz, numberOfChannels: header.channels };
      frames.push({ data: all.slice(at, at + header.bytes), durationUs: header.durationUs });
      at += header.bytes;
    }
    this.#rest = all.slice(Math.min(at, all.length));
    return frames;
  }
}

/** The length of an ID3v2 tag at the start; its size is four groups of seven bits. */
function tagLength(bytes) {
  if (bytes.length < 10 || bytes[0] !== 0x49 || bytes[1] !== 0x44 || bytes[2] !== 0x33) return 0;
  return 10 + ((bytes[6] << 21) | (bytes[7] << 14) | (bytes[8] << 7) | bytes[9]);
}
