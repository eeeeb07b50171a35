// The client's half of a conversation as a value machine: messages, the user's acts and the player's reports go in;
// what to send and what to play comes out. Pure: no DOM, no socket, no clock (times are arguments).
//
// The law it keeps: from the moment the user cancels, nothing of the old reply is played or shown, however late it
// arrives; the server promises that nothing follows its `canceled`, so until that answer everything is old.

import { request } from "./protocol.js";
import { Turn, addPicture, asMessages, light, newReply } from "./turns.js";

export const INTERRUPTED_SHOWN_MS = 900;
const REPORT_MS = 200;
const MAX_TURNS = 200;

export class Session {
  constructor() {
    /** @type {Turn[]} oldest first */
    this.turns = [];
    this.late = 0;
    this.microphoneOpen = false;
    this.reset();
  }

  #count = 0;
  /** The turn that is being spoken; and the one that is being answered, from the end of its speech to its completion. */
  #speaking;
  #asking;
  /** The turn whose audio the player is sounding. */
  #sounding;
  /** The turn of the last cancel that has no answer yet: a result that still comes is of that turn. */
  #canceled;
  #unansweredCancels;
  /** The turns of the `complete`s that have no answer yet, in order. */
  #unanswered;
  /** Completions still to come for turns that the user has already left behind. */
  #staleCompletions;
  #interruptedAtMs;

  /** The connection is new: the server remembers no turn in progress. What was said stays. */
  reset() {
    this.#speaking = null;
    this.#asking = null;
    this.#sounding = null;
    this.#canceled = null;
    this.#unansweredCancels = 0;
    this.#unanswered = [];
    this.#staleCompletions = 0;
    this.#interruptedAtMs = -Infinity;
  }

  /** idle | listening | thinking | speaking | interrupted */
  state(nowMs) {
    if (nowMs - this.#interruptedAtMs < INTERRUPTED_SHOWN_MS) return "interrupted";
    if (this.#sounding) return "speaking";
    if (this.#asking) return "thinking";
    return this.microphoneOpen ? "listening" : "idle";
  }

  /** Whether there is a reply that a cancel would stop. */
  get replying() {
    return Boolean(this.#asking || this.#sounding);
  }

  /** The conversation as a chat model's messages, replies cut to what was heard: for a new connection. */
  history() {
    return asMessages(this.turns.filter((turn) => turn !== this.#speaking));
  }

  // --- the user ------------------------------------------------------------------------------------------------

  /** The user begins to speak by hand (push-to-talk). A reply in progress is stopped first. */
  talk(nowMs) {
    const effects = this.cancel(nowMs);
    this.#speaking = this.#newTurn();
    return effects;
  }

  /** The user has finished speaking by hand. */
  finish(nowMs) {
    if (!this.#speaking) return [];
    this.#unanswered.push(this.#speaking);
    this.#ask(this.#speaking, nowMs);
    return [{ send: request.complete() }];
  }

  /** The user has typed a turn. */
  say(text, nowMs) {
    const effects = this.cancel(nowMs);
    const turn = this.#newTurn();
    turn.user = { finals: [text], partial: "", typed: true };
    this.#ask(turn, nowMs);
    return [...effects, { send: request.say(text) }];
  }

  /** Stop the reply, if there is one. The server first learns how much of it was heard. */
  cancel(nowMs) {
    if (!this.replying) return [];
    const reply = this.#sounding?.reply;
    const report = reply ? [{ send: request.played(reply.key, reply.playedMs) }] : [];
    this.#unansweredCancels += 1;
    this.#canceled = this.#asking;
    if (this.#asking) this.#staleCompletions += 1;
    return [...report, { send: request.cancel() }, ...this.#cut(nowMs)];
  }

  /** Forget the conversation, here and there. */
  forget(nowMs) {
    const effects = this.cancel(nowMs);
    this.turns = [];
    return [...effects, { send: request.forget() }];
  }

  // --- the player ----------------------------------------------------------------------------------------------

  /** The first sample of a reply leaves the loudspeaker. */
  sounding(key, nowMs) {
    const turn = this.#audibleTurn(key);
    if (!turn) return [];
    this.#sounding = turn;
    turn.marks.heard ??= nowMs;
    return [];
  }

  /** So much of a reply has been heard, out of what has been decoded so far. */
  played(key, playedMs, queuedMs) {
    const turn = this.#audibleTurn(key);
    if (!turn) return [];
    const reply = turn.reply;
    reply.playedMs = Math.max(reply.playedMs, playedMs);
    reply.totalMs = Math.max(reply.totalMs, queuedMs);
    light(reply);
    if (reply.playedMs - reply.reportedMs < REPORT_MS && !reply.sounded) return [];
    reply.reportedMs = reply.playedMs;
    return [{ send: request.played(key, reply.playedMs) }];
  }

  /** A reply cannot be sounded: its text is read as it comes. */
  read(key) {
    const turn = this.#audibleTurn(key);
    if (turn) light(Object.assign(turn.reply, { isRead: true }));
  }

  /** Everything of a reply has been heard. */
  drained(key, playedMs) {
    const turn = this.#audibleTurn(key);
    if (!turn) return [];
    turn.reply.sounded = true;
    const effects = this.played(key, playedMs, playedMs);
    turn.reply.heardLength = turn.reply.text.length;
    if (this.#sounding === turn) this.#sounding = null;
    return effects;
  }

  // --- the server ----------------------------------------------------------------------------------------------

  /** Take a decoded message. `speechEndMs`: when the speech ended whose end a hands-free server has just found. */
  receive(message, nowMs, speechEndMs = nowMs) {
    switch (message.kind) {
      case "recognition":
        return this.#recognised(message, nowMs);
      case "text":
        return this.#chunk(message, nowMs);
      case "audio":
        return this.#audio(message, nowMs);
      case "audio_end":
        return this.#audioEnd(message);
      case "turn_completed":
        return this.#completed();
      case "answer":
        return this.#answered(message, nowMs, speechEndMs);
      case "error":
        return this.#failed(message);
      default:
        return message.kind === "picture" ? addPicture(this.turns, message) : [];
    }
  }

  #recognised({ text, final }, nowMs) {
    const turn = this.#spokenTurn();
    if (!turn) return [];
    turn.user.partial = final ? "" : text;
    if (final && text) turn.user.finals.push(text);
    turn.marks.text = nowMs;
    return [];
  }

  #chunk({ reply: key, text, finish }, nowMs) {
    const reply = this.#replyFor(key);
    if (!reply) return [];
    if (text) this.#asking.marks.token ??= nowMs;
    reply.text += text;
    if (finish) reply.textEnded = true;
    light(reply);
    return [];
  }

  #audio({ reply: key, payload }, nowMs) {
    const reply = this.#replyFor(key);
    if (!reply || payload.length === 0) return [];
    this.#asking.marks.audio ??= nowMs;
    return [{ play: key, payload }];
  }

  #audioEnd({ reply: key }) {
    const reply = this.#replyFor(key);
    if (!reply) return [];
    reply.audioEnded = true;
    return [{ end: key }];
  }

  #completed() {
    if (this.#staleCompletions > 0) {
      this.#staleCompletions -= 1;
      return [];
    }
    const turn = this.#asking;
    this.#asking = null;
    if (turn && !turn.userText && !turn.reply) this.turns = this.turns.filter((other) => other !== turn);
    // An error may have cut the audio off without a finish frame: what has come is played to its end.
    return turn?.reply && !turn.reply.audioEnded ? [{ end: turn.reply.key }] : [];
  }

  #answered({ to, status, message, reason }, nowMs, speechEndMs) {
    if (to === "cancel") return this.#cancelAnswered(reason, nowMs);
    if (to !== "complete") return [];
    if (!reason) return this.#completeAnswered(status, message);
    if (status === 0) this.#ask(this.#speaking ?? this.#newTurn(), speechEndMs);
    return [];
  }

  /** With a reason nobody asked: a hands-free server has heard the user speak over the reply. */
  #cancelAnswered(reason, nowMs) {
    if (reason) return this.replying ? this.#cut(nowMs) : [];
    this.#unansweredCancels = Math.max(0, this.#unansweredCancels - 1);
    return [];
  }

  #completeAnswered(status, message) {
    const turn = this.#unanswered.shift();
    if (status === 0 || !turn) return [];
    if (this.#asking === turn) this.#asking = null;
    else this.#staleCompletions = Math.max(0, this.#staleCompletions - 1);
    if (!turn.userText) this.turns = this.turns.filter((other) => other !== turn);
    // 40901: not a word had been sent yet, as after a slip of the finger.
    return status === 40901 ? [] : [{ notice: message }];
  }

  #failed({ message }) {
    if (this.#asking) this.#asking.fault = message;
    return [{ notice: message }];
  }

  /** The turn that a recognition result belongs to: what was said last and is not answered yet, else a new turn. */
  #spokenTurn() {
    if (this.#unansweredCancels > 0) return this.#canceled?.reply ? null : this.#canceled;
    const awaited = this.#asking && !this.#asking.reply && !this.#asking.user.typed;
    return awaited ? this.#asking : (this.#speaking ??= this.#newTurn());
  }

  #newTurn() {
    this.#count += 1;
    const turn = new Turn(this.#count);
    this.turns.push(turn);
    if (this.turns.length > MAX_TURNS) this.turns.shift();
    return turn;
  }

  #ask(turn, nowMs) {
    turn.marks.end = nowMs;
    if (this.#speaking === turn) this.#speaking = null;
    this.#asking = turn;
  }

  #audibleTurn(key) {
    return this.turns.findLast(({ reply }) => reply?.key === key && !reply.cut);
  }

  /** The reply that a message belongs to, or null for one that is no longer wanted: late is normal. */
  #replyFor(key) {
    const turn = this.#asking;
    if (this.#unansweredCancels > 0 || !turn || (turn.reply && turn.reply.key !== key)) {
      this.late += 1;
      return null;
    }
    turn.reply ??= newReply(key);
    return turn.reply;
  }

  #cut(nowMs) {
    for (const turn of [this.#sounding, this.#asking]) {
      if (!turn?.reply) continue;
      turn.reply.cut = true;
      turn.reply.text = turn.heardText.trimEnd();
    }
    this.#asking = null;
    this.#sounding = null;
    this.#interruptedAtMs = nowMs;
    return [{ stop: true }];
  }
}
