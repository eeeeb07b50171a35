// The event log: every frame with direction, time and size, and the golden-transcript form of it. Pure.

import { MICROPHONE_RATE_HZ, replyKey } from "./protocol.js";

export const MAX_ENTRIES = 20_000;

export class EventLog {
  #startedMs;
  #millisecondsOf;

  /** `millisecondsOf(payloadBytes)`: the length of reply audio, where its format tells. */
  constructor(nowMs, millisecondsOf = () => null) {
    this.#startedMs = nowMs;
    this.#millisecondsOf = millisecondsOf;
    this.entries = [];
    this.dropped = 0;
  }

  /** Note a frame: text or bytes. Returns the entry {number, atMs, from, bytes, line}. */
  add(from, frame, nowMs) {
    const entry = {
      number: this.entries.length + this.dropped,
      atMs: Math.round(nowMs - this.#startedMs),
      from,
      bytes: typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.byteLength,
      line: from === "client" ? clientLine(frame) : this.#serverLine(frame),
    };
    this.entries.push(entry);
    if (this.entries.length > MAX_ENTRIES) {
      this.entries.shift();
      this.dropped += 1;
    }
    return entry;
  }

  #serverLine(frame) {
    if (typeof frame !== "string") {
      const payloadBytes = Math.max(0, frame.byteLength - 16);
      return { server_audio: { audio_ms: this.#millisecondsOf(payloadBytes) ?? payloadBytes } };
    }
    let message;
    try {
      message = JSON.parse(frame);
    } catch {
      return { server_text: frame };
    }
    if (message === null || typeof message !== "object") return { server_text: frame };
    return { server: this.#normalised(message) };
  }

  /** As transcripts write it: no stamps, audio by its length, replies by their number. */
  #normalised({ created: _created, audioFrame, ...message }) {
    if (typeof audioFrame === "string") {
      const payloadBytes = Math.floor((audioFrame.replace(/=+$/, "").length * 3) / 4);
      const lengthMs = this.#millisecondsOf(payloadBytes);
      if (lengthMs === null) message.audio_bytes = payloadBytes;
      else message.audio_ms = lengthMs;
    } else if (audioFrame !== undefined) message.audioFrame = audioFrame;
    if (typeof message.id === "string") message.id = replyName(message.id);
    return message;
  }

  /** The whole log as a golden transcript: JSON Lines, head first, end last. */
  toJsonLines(about, nowMs) {
    const lines = [
      { transcript: "recorded", about: this.dropped ? `${about} The first ${this.dropped} messages are missing.` : about, dialect: "speech_chat" },
      ...this.entries.map(({ atMs, line }) => ({ at_ms: atMs, ...line })),
      { at_ms: Math.round(nowMs - this.#startedMs), end: true },
    ];
    return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  }
}

function clientLine(frame) {
  if (typeof frame !== "string") return { client_audio_ms: Math.round((frame.byteLength / 2 / MICROPHONE_RATE_HZ) * 1000) };
  const message = JSON.parse(frame);
  if (message.event_type === "conversation.audio.played") message.reply = `<reply ${message.reply}>`;
  return { client: message };
}

function replyName(id) {
  const key = replyKey(id);
  return typeof key === "number" ? `<reply ${key}>` : id;
}

/** The length of s16le payloads of a format; null for compressed ones. */
export function lengthByFormat(format) {
  const pcm = /^(?:PCM|WAV)_(\d+)HZ_/.exec(format);
  return (bytes) => (pcm ? Math.round((bytes / 2 / Number(pcm[1])) * 1000) : null);
}
