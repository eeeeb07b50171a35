import assert from "node:assert/strict";
import { test } from "node:test";

import { dataOffset, openDecoder } from "../../web_demo/audio/decoders.js";
import { Mp3Frames } from "../../web_demo/audio/mp3-frames.js";
import { OggPackets } from "../../web_demo/audio/ogg-packets.js";
import { Blocks, fromPcm16, rootMeanSquare, toPcm16 } from "../../web_demo/audio/pcm.js";
import { Resampler } from "../../web_demo/audio/resampler.js";

function tone(hz, rateHz, seconds) {
  return Float32Array.from({ length: Math.round(rateHz * seconds) }, (_, index) => 0.5 * Math.sin((2 * Math.PI * hz * index) / rateHz));
}

const decibels = (samples) => 20 * Math.log10(rootMeanSquare(samples.subarray(samples.length >> 2)) / (0.5 / Math.SQRT2));

for (const rateHz of [44100, 48000, 96000]) {
  test(`from ${rateHz} Hz speech passes, and what 16 kHz cannot carry does not fold back`, () => {
    for (const hz of [100, 1000, 4000, 6500]) assert.ok(Math.abs(decibels(new Resampler(rateHz, 16000).process(tone(hz, rateHz, 0.5)))) < 0.1, `${hz}`);
    for (const hz of [8100, 9000, 12000, 15900]) assert.ok(decibels(new Resampler(rateHz, 16000).process(tone(hz, rateHz, 0.5))) < -60, `${hz}`);
    assert.ok(new Resampler(rateHz, 16000).delayMs < 5);
  });

  test(`from ${rateHz} Hz block by block equals all at once, and no sample is lost`, () => {
    const input = tone(440, rateHz, 1);
    const whole = new Resampler(rateHz, 16000).process(input);
    const streaming = new Resampler(rateHz, 16000);
    const pieces = [];
    for (let at = 0, size = 1; at < input.length; at += size, size = (size * 7) % 1031) pieces.push(...streaming.process(input.subarray(at, at + size)));
    assert.deepEqual(Float32Array.from(pieces), whole);
    assert.ok(Math.abs(whole.length - 16000) <= 1, `${whole.length}`);
  });
}

test("samples survive the wire, and what is too loud is clipped", () => {
  assert.deepEqual([...fromPcm16(toPcm16([0, 0.5, -1, 2]))], [0, 0.5, -1, 32767 / 32768]);
});

test("blocks are of one size, and the rest is not lost", () => {
  const blocks = new Blocks(4);
  assert.deepEqual(blocks.push(new Float32Array([1, 2, 3])), []);
  assert.deepEqual(blocks.push(new Float32Array([4, 5, 6, 7, 8, 9])).map((block) => [...block]), [[1, 2, 3, 4], [5, 6, 7, 8]]);
  assert.deepEqual([...blocks.flush()], [9]);
  assert.equal(blocks.flush().length, 0);
});

function wavHeader() {
  const view = new DataView(new ArrayBuffer(54));
  [0x52494646, 0, 0x57415645, 0x666d7420].forEach((word, index) => view.setUint32(index * 4, word));
  view.setUint32(16, 16, true);
  view.setUint32(36, 0x4c495354); // a LIST chunk between
  view.setUint32(40, 2, true);
  view.setUint32(46, 0x64617461);
  return new Uint8Array(view.buffer);
}

test("a WAV stream in pieces of any size gives the samples behind its header", () => {
  assert.equal(dataOffset(wavHeader()), 54);
  const stream = [...wavHeader(), ...toPcm16([0.25, -0.25, 0.5])];
  for (const size of [1, 3, 50, 100]) {
    const samples = [];
    const decoder = openDecoder("WAV_24000HZ_MONO_16BIT", (part) => samples.push(...part));
    for (let at = 0; at < stream.length; at += size) decoder.feed(Uint8Array.from(stream.slice(at, at + size)));
    assert.deepEqual(samples, [0.25, -0.25, 0.5]);
  }
});

test("an MP3 stream in pieces of any size gives its frames", () => {
  // MPEG-2 layer III, 64 kbps, 24 kHz, mono: 72 * 64000 / 24000 = 192 bytes and 24 ms.
  const frame = new Uint8Array(192);
  frame.set([0xff, 0xf3, 0x84, 0xc4]);
  const tag = Uint8Array.from([0x49, 0x44, 0x33, 4, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
  const stream = [...tag, ...frame, ...frame, ...frame];
  for (const size of [7, 100, 1000]) {
    const frames = new Mp3Frames();
    const found = [];
    for (let at = 0; at < stream.length; at += size) found.push(...frames.push(Uint8Array.from(stream.slice(at, at + size))));
    assert.deepEqual(found.map(({ data, durationUs }) => [data.length, durationUs]), [[192, 24000], [192, 24000], [192, 24000]]);
    assert.deepEqual(frames.configuration, { codec: "mp3", sampleRate: 24000, numberOfChannels: 1 });
  }
});

function oggPage(...packets) {
  const segments = packets.flatMap((packet) => [...new Array(Math.floor(packet.length / 255)).fill(255), packet.length % 255]);
  return [...Buffer.from("OggS"), ...new Array(22).fill(0), segments.length, ...segments, ...packets.flat()];
}

test("an Ogg stream in pieces of any size gives its Opus packets, also those longer than a segment", () => {
  const head = [...Buffer.from("OpusHead"), 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  const long = [0x78, ...new Array(299).fill(1)]; // configuration 15, one frame: 20 ms
  const stream = [...oggPage(head), ...oggPage([...Buffer.from("OpusTags")]), ...oggPage(long, [0x79, 1, 2])];
  for (const size of [1, 64, 1000]) {
    const packets = new OggPackets();
    const found = [];
    for (let at = 0; at < stream.length; at += size) found.push(...packets.push(Uint8Array.from(stream.slice(at, at + size))));
    assert.deepEqual(found.map(({ data, durationUs }) => [data.length, durationUs]), [[300, 20000], [3, 40000]]);
    assert.equal(packets.configuration.numberOfChannels, 1);
  }
});
