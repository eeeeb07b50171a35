// Takes Opus packets out of an Ogg stream (RFC 3533 pages, RFC 7845 headers). Pure.

import { concatenate } from "./pcm.js";

const PAGE_HEADER_BYTES = 27;
const CAPTURE_PATTERN = 0x4f676753; // "OggS"
/** Milliseconds of one Opus frame by the configuration number of its first byte (RFC 6716 section 3.1). */
const FRAME_MS = [...[10, 20, 40, 60], ...[10, 20, 40, 60], ...[10, 20, 40, 60], 10, 20, 10, 20, ...[2.5, 5, 10, 20], ...[2.5, 5, 10, 20], ...[2.5, 5, 10, 20], ...[2.5, 5, 10, 20]];

export class OggPackets {
  #rest = new Uint8Array(0);
  #partial = new Uint8Array(0);
  #headers = 0;
  /** For AudioDecoder.configure, known with the identification header. */
  configuration = null;

  push(bytes) {
    let all = concatenate(this.#rest, bytes);
    const packets = [];
    for (let page = readPage(all); page; page = readPage(all)) {
      packets.push(...this.#packetsOf(page));
      all = all.slice(page.bytes);
    }
    this.#rest = all;
    return packets;
  }

  #packetsOf({ segments, body }) {
    const packets = [];
    let at = 0;
    for (const length of segments) {
      this.#partial = concatenate(this.#partial, body.subarray(at, at + length));
      at += length;
      if (length === 255) continue; // the packet goes on in the next segment
      const packet = this.#partial;
      this.#partial = new Uint8Array(0);
      if (this.#isAudio(packet)) packets.push({ data: packet, durationUs: durationUs(packet) });
    }
    return packets;
  }

  /** The first two packets are OpusHead and OpusTags. */
  #isAudio(packet) {
    this.#headers += 1;
    if (this.#headers === 1) {
      this.configuration = { codec: "opus", sampleRate: 48000, numberOfChannels: packet[9], description: packet };
    }
    return this.#headers > 2 && packet.length > 0;
  }
}

function readPage(bytes) {
  if (bytes.length < PAGE_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== CAPTURE_PATTERN) throw new Error("not an Ogg page");
  const count = bytes[26];
  const segments = bytes.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + count);
  const start = PAGE_HEADER_BYTES + count;
  const length = segments.reduce((sum, segment) => sum + segment, 0);
  if (segments.length < count || bytes.length < start + length) return null;
  return { segments, body: bytes.subarray(start, start + length), bytes: start + length };
}

function durationUs(packet) {
  const frames = [1, 2, 2, packet[1] & 0x3f][packet[0] & 3];
  return FRAME_MS[packet[0] >> 3] * 1000 * frames;
}
