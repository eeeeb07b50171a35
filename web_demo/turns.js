// What a conversation consists of: turns, each with what the user said and what was replied. Pure.

import { spokenLength } from "./playback-transcript.js";

const HAN = /\p{Script=Han}/u;

/** One exchange. `marks` are times in ms on the page's clock; an absent mark has not happened. */
export class Turn {
  constructor(number) {
    this.number = number;
    this.user = { finals: [], partial: "", typed: false };
    this.reply = null;
    this.pictures = []; // { url, prompt, message }; without a url: why there is none
    this.marks = {};
    this.fault = "";
  }

  get userText() {
    return joinSentences([...this.user.finals, this.user.partial]);
  }

  /** The reply's text as far as it has been spoken. */
  get heardText() {
    return this.reply ? this.reply.text.slice(0, this.reply.heardLength) : "";
  }
}

/** Sentences side by side: a space between them, but none after Chinese. */
export function joinSentences(sentences) {
  return sentences.filter(Boolean).reduce((text, next) => (text && !HAN.test(text.at(-1)) && !/[。！？，]$/.test(text) ? `${text} ${next}` : text + next), "");
}

/** A reply of which nothing has been heard yet. */
export function newReply(key) {
  return {
    key,
    text: "",
    heardLength: 0, // of the text, in UTF-16 units
    playedMs: 0,
    reportedMs: 0,
    totalMs: 0, // decoded so far
    textEnded: false,
    audioEnded: false,
    sounded: false, // to its end
    isRead: false, // it cannot be sounded
    cut: false,
  };
}

/** Take note of how much of a reply's text has been spoken, or read. */
export function light(reply) {
  const complete = reply.audioEnded && reply.textEnded;
  if (reply.isRead) reply.heardLength = reply.text.length;
  else reply.heardLength = Math.max(reply.heardLength, spokenLength(reply.text, { ...reply, complete }));
}

/** Turns as a chat model's messages, replies cut to what was heard. */
export function asMessages(turns) {
  return turns
    .filter(({ userText }) => userText)
    .flatMap(({ userText, heardText }) => [
      { role: "user", content: userText },
      ...(heardText.trim() ? [{ role: "assistant", content: heardText.trim() }] : []),
    ]);
}

/** Show a picture with the last turn that was answered: it may come long after the one that asked for it. */
export function addPicture(turns, { url, prompt, message }) {
  const turn = turns.findLast(({ reply }) => reply) ?? turns.at(-1);
  turn?.pictures.push({ url, prompt, message });
  return [];
}
