import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, replyKey } from "../../web_demo/protocol.js";
import { INTERRUPTED_SHOWN_MS, Session } from "../../web_demo/session.js";
import { joinSentences } from "../../web_demo/turns.js";

const answer = (to, status = 0, extra = {}) => ({ kind: "answer", to, status, message: status ? "no" : "", reason: null, ...extra });
const final = (text) => ({ kind: "recognition", text, final: true });
const partial = (text) => ({ kind: "recognition", text, final: false });
const chunk = (reply, text, finish = null) => ({ kind: "text", reply, text, finish });
const audio = (reply, bytes = 100) => ({ kind: "audio", reply, payload: new Uint8Array(bytes) });
const completed = { kind: "turn_completed" };
const types = (effects) => effects.map((effect) => effect.send?.event_type ?? Object.keys(effect)[0]);

/** A session in which reply 1 is being heard. */
function speaking() {
  const session = new Session();
  session.talk(0);
  session.finish(1000);
  for (const message of [answer("complete"), final("go"), chunk(1, "Hello there. How are you?", "stop"), audio(1)]) session.receive(message, 1100);
  session.sounding(1, 1200);
  return session;
}

test("the states of a turn", () => {
  const session = new Session();
  assert.equal(session.state(0), "idle");
  session.microphoneOpen = true;
  session.talk(0);
  assert.equal(session.state(0), "listening");
  session.microphoneOpen = false;
  session.finish(10);
  assert.equal(session.state(10), "thinking");
  session.receive(audio(1), 20);
  assert.equal(session.state(20), "thinking", "until it is heard");
  session.sounding(1, 30);
  session.receive(completed, 40);
  assert.equal(session.state(40), "speaking", "sent is not heard");
  session.drained(1, 1000);
  assert.equal(session.state(50), "idle");
});

test("a cancel silences at once, whatever still arrives, and reports what was heard first", () => {
  const session = speaking();
  session.played(1, 700, 1000);
  const effects = session.cancel(2000);
  assert.deepEqual(types(effects), ["conversation.audio.played", "conversation.chat.cancel", "stop"]);
  assert.equal(effects[0].send.played_ms, 700);
  assert.equal(session.state(2000), "interrupted");
  for (const late of [chunk(1, " More."), audio(1), { kind: "audio_end", reply: 1 }]) assert.deepEqual(session.receive(late, 2010), []);
  session.receive(answer("cancel"), 2020);
  session.receive(completed, 2020);
  assert.deepEqual(session.receive(audio(1), 2030), []);
  assert.equal(session.late, 4);
  const [{ reply }] = session.turns;
  assert.ok("Hello there. How are you?".startsWith(reply.text) && reply.text.length < 20, reply.text);
  assert.equal(session.state(2000 + INTERRUPTED_SHOWN_MS), "idle");
});

test("speaking over a reply cancels it, and the old turn's completion does not end the new turn", () => {
  const session = new Session();
  session.talk(0);
  session.finish(100);
  session.receive(chunk(1, "Old"), 200);
  assert.deepEqual(types(session.talk(300)), ["conversation.chat.cancel", "stop"]);
  session.finish(900);
  for (const message of [answer("complete"), answer("cancel"), completed, answer("complete"), final("new words")]) session.receive(message, 1000);
  assert.equal(session.state(5000), "thinking");
  assert.deepEqual(types(session.receive(audio(2), 1100)), ["play"]);
  session.receive(completed, 1200);
  assert.deepEqual(session.turns.map(({ userText }) => userText), ["", "new words"]);
});

test("a natural end that crosses the cancel is not taken for the next turn's end", () => {
  const session = speaking();
  session.cancel(2000);
  session.receive(completed, 2001); // was under way
  session.say("next", 2002);
  session.receive(answer("cancel"), 2003); // answered without a second completion
  assert.equal(session.state(9000), "thinking");
  session.receive(completed, 2500);
  assert.equal(session.state(9000), "idle");
});

test("a result that was under way when its turn was cancelled is not the next turn's", () => {
  const session = new Session();
  session.talk(0);
  session.finish(100);
  session.talk(200);
  session.receive(final("old"), 210);
  session.receive(answer("cancel"), 220);
  session.receive(completed, 220);
  session.receive(partial("new"), 300);
  assert.deepEqual(session.turns.map(({ userText }) => userText), ["old", "new"]);
});

test("an empty turn leaves no trace; neither does one that was refused", () => {
  const session = new Session();
  session.talk(0);
  session.finish(10);
  session.receive(answer("complete"), 20);
  session.receive(completed, 30);
  assert.deepEqual(session.turns, []);
  session.talk(40);
  session.finish(50);
  assert.deepEqual(session.receive(answer("complete", 40901), 60), []);
  assert.deepEqual(session.turns, []);
  assert.equal(session.state(9000), "idle");
});

test("a refused turn that was cancelled meanwhile owes no completion", () => {
  const session = new Session();
  session.talk(0);
  session.finish(10);
  session.cancel(20);
  session.receive(answer("complete", 40901), 30);
  session.receive(answer("cancel"), 30);
  session.say("hello", 40);
  session.receive(completed, 50);
  assert.equal(session.state(9000), "idle");
});

test("hands-free: the server ends the turn and interrupts", () => {
  const session = new Session();
  session.microphoneOpen = true;
  session.receive(partial("go for"), 100);
  session.receive(final("go forward"), 400);
  session.receive(answer("complete", 0, { reason: "turn_detected" }), 900, 420);
  assert.equal(session.state(900), "thinking");
  assert.equal(session.turns[0].marks.end, 420);
  session.receive(chunk(1, "Going.", "stop"), 950);
  session.receive(audio(1), 960);
  session.sounding(1, 1000);
  session.receive(completed, 1010);
  const effects = session.receive(answer("cancel", 0, { reason: "turn_detected" }), 1500);
  assert.deepEqual(types(effects), ["stop"]);
  assert.equal(session.state(1500), "interrupted");
  session.receive(partial("stop"), 1600);
  assert.equal(session.turns[1].userText, "stop");
  assert.equal(session.state(1500 + INTERRUPTED_SHOWN_MS), "listening");
});

test("a failure ends what is played where it broke off, and is told", () => {
  const session = speaking();
  assert.deepEqual(session.receive({ kind: "error", status: 50203, message: "synthesis failed" }, 1300), [{ notice: "synthesis failed" }]);
  assert.deepEqual(session.receive(completed, 1310), [{ end: 1 }]);
  assert.equal(session.turns[0].fault, "synthesis failed");
});

test("the memory for a new connection holds only what was heard", () => {
  const session = speaking();
  session.receive({ kind: "audio_end", reply: 1, characters: 24 }, 1300);
  session.receive(completed, 1300);
  session.played(1, 1000, 2000);
  session.cancel(2300);
  const [user, assistant] = session.history();
  assert.deepEqual(user, { role: "user", content: "go" });
  assert.equal(assistant.content, "Hello there.");
});

test("sentences join with a space, Chinese ones without", () => {
  assert.equal(joinSentences(["go", "forward", ""]), "go forward");
  assert.equal(joinSentences(["你好。", "今天怎么样"]), "你好。今天怎么样");
});

test("no frame makes the reader throw", () => {
  for (const frame of ["", "{", "null", "[]", "7", "{}", '{"choices":[]}', '{"audioFrame":"*"}', '{"event_type":7}', new ArrayBuffer(3)]) decode(frame);
});

test("binary audio carries reply, sequence and position", () => {
  const frame = new DataView(new ArrayBuffer(20));
  frame.setUint32(0, 7);
  frame.setUint32(4, 2);
  frame.setBigUint64(8, 1500n);
  const message = decode(frame.buffer);
  assert.deepEqual([message.kind, message.reply, message.sequence, message.positionMs, message.payload.length], ["audio", 7, 2, 1500, 4]);
  assert.equal(replyKey("chatcmpl-4fzz0q-7"), 7);
  assert.equal(replyKey("chatcmpl-abc"), "chatcmpl-abc");
});

test("the answer to an update is understood by both of its names", () => {
  for (const name of ["chat.updated", "chat.update"]) assert.equal(decode(JSON.stringify({ event_type: name, status: 0, message: "" })).to, "update");
});

test("an old reply that is late is not taken for the next one", () => {
  const session = speaking();
  session.cancel(2000);
  session.say("next", 2001);
  assert.deepEqual(session.receive(audio(1), 2002), [], "before the cancel is answered");
  for (const message of [answer("cancel"), completed, chunk(2, "New.")]) session.receive(message, 2003);
  assert.deepEqual(session.receive(audio(1), 2004), [], "after the next reply has begun");
  assert.deepEqual(types(session.receive(audio(2), 2005)), ["play"]);
  assert.equal(session.turns[1].reply.text, "New.");
});

test("a reply that cannot be sounded is read as it comes, and remembered whole", () => {
  const session = new Session();
  session.say("hi", 0);
  session.receive(chunk(1, "Hello there."), 10);
  assert.equal(session.turns[0].heardText, "");
  session.receive(audio(1), 20);
  session.read(1);
  session.receive(chunk(1, " How are you?", "stop"), 30);
  assert.equal(session.turns[0].heardText, "Hello there. How are you?");
  session.receive(completed, 40);
  assert.equal(session.state(50), "idle");
  assert.deepEqual(session.history().at(-1), { role: "assistant", content: "Hello there. How are you?" });
});

test("a picture belongs to the last turn that was answered", () => {
  const session = speaking();
  const picture = { event_type: "conversation.picture", status: 0, message: "", id: "p", prompt: "a cat", url: "http://h/media/a.png" };
  session.receive(completed, 1300);
  assert.deepEqual(session.receive(decode(JSON.stringify(picture)), 1400), []);
  session.receive(decode(JSON.stringify({ ...picture, status: 50204, message: "refused", url: undefined })), 1500);
  const [turn] = session.turns;
  assert.deepEqual(turn.pictures, [
    { url: "http://h/media/a.png", prompt: "a cat", message: "" },
    { url: "", prompt: "a cat", message: "refused" },
  ]);
  assert.deepEqual(new Session().receive(decode(JSON.stringify(picture)), 0), []);
});
