// The golden transcripts of protocol/, played against protocol.js and session.js.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { decode, replyKey, request } from "../../web_demo/protocol.js";
import { Session } from "../../web_demo/session.js";

const FOLDER = new URL("../../protocol/transcripts/", import.meta.url);
const RATE_HZ = 16000;

function readTranscript(name) {
  const [head, ...lines] = readFileSync(new URL(name, FOLDER), "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
  return { ...head, lines };
}

const transcripts = readdirSync(FOLDER).filter((name) => name.endsWith(".jsonl")).map(readTranscript);
const conversations = transcripts.filter(({ dialect }) => dialect === "speech_chat");

/** The frame that a server sends for a line: audio of its length, ids with the reply's number. */
function serverFrame(message) {
  const written = JSON.parse(JSON.stringify(message).replace(/<reply (\d+)>/g, "chatcmpl-golden-$1"));
  if ("audio_ms" in written) {
    written.audioFrame = Buffer.alloc((written.audio_ms * RATE_HZ * 2) / 1000).toString("base64");
    delete written.audio_ms;
  }
  return JSON.stringify(written);
}

const ENCODERS = {
  "chat.update": ({ message }) => request.update(typeof message === "string" ? JSON.parse(message) : message),
  "input_audio_buffer.complete": request.complete,
  "input_audio_buffer.clear": request.clear,
  "conversation.clear": request.forget,
  "conversation.chat.cancel": request.cancel,
  "conversation.audio.played": ({ reply, played_ms }) => request.played(reply, played_ms),
  "conversation.message.create": ({ role, tool_call_id: callId, content }) => (role === "tool" ? request.answerTool(callId, content) : request.say(content)),
  ping: request.ping,
};

/** An object in place of the document's JSON string is the server's courtesy: compared by what it says. */
function unpacked({ message, ...rest }) {
  return { ...rest, ...(message !== undefined && { message: typeof message === "string" ? JSON.parse(message) : message }) };
}

test("there are transcripts", () => assert.ok(conversations.length > 30));

for (const { transcript, lines } of transcripts) {
  test(`${transcript}: every message of the server is understood`, () => {
    for (const { server } of lines) {
      if (!server || server.status === "ok") continue;
      const message = decode(serverFrame(server));
      assert.notEqual(message.kind, "unknown", JSON.stringify(server));
      if (server.event_type === "error") assert.deepEqual(message, { kind: "error", status: server.status, message: server.message });
      if (server.choices) {
        const { content, tool_calls: toolCalls } = server.choices[0].delta;
        assert.equal(message.text, content ?? "");
        assert.deepEqual(message.toolCalls, toolCalls ?? []);
      }
      if ("audio_ms" in server) assert.equal(message.payload.length, server.audio_ms * 32);
      if ("is_sentence_end" in server) assert.equal(message.final, server.end_time !== null);
    }
  });

  test(`${transcript}: every message of the client is written so`, () => {
    for (const { client } of lines) {
      // A few are broken on purpose: their event has no encoder, or an encoder would not write that.
      const encode = client && ENCODERS[client.event_type];
      if (!encode || /bad-/.test(transcript)) continue;
      assert.deepEqual(unpacked(encode(client)), unpacked(client));
    }
  });
}

/** Let a client live through a conversation as the page would: it acts where the transcript's client does. */
function live({ lines }) {
  const session = new Session();
  const sent = [];
  const heard = new Map(); // reply -> bytes that reached the player
  const afterCancel = [];
  let canceling = false;
  const perform = (effects) => {
    for (const effect of effects) {
      if (effect.send) sent.push(effect.send.event_type);
      if (effect.play !== undefined) {
        heard.set(effect.play, (heard.get(effect.play) ?? 0) + effect.payload.length);
        if (canceling) afterCancel.push(effect);
        if (heard.get(effect.play) === effect.payload.length) perform(session.sounding(effect.play, 0));
      }
    }
  };
  let spoken = false;
  for (const { at_ms: nowMs, client, client_audio_ms: audioMs, server } of lines) {
    if (audioMs && !spoken) {
      spoken = true;
      // What was sent has been heard by the time that somebody speaks again.
      for (const reply of heard.keys()) perform(session.drained(reply, 0));
      if (!session.replying) session.talk(nowMs);
    }
    if (client?.event_type === "input_audio_buffer.complete") {
      spoken = false;
      if (!session.replying) perform(session.finish(nowMs));
    }
    if (client?.event_type === "conversation.message.create" && client.role === "user") {
      for (const reply of heard.keys()) perform(session.drained(reply, 0));
      if (!session.replying) perform(session.say(client.content, nowMs));
    }
    if (client?.event_type === "conversation.chat.cancel") {
      canceling = session.replying;
      perform(session.cancel(nowMs));
    }
    if (server) {
      const message = decode(serverFrame(server));
      perform(session.receive(message, nowMs));
      if (message.to === "cancel") canceling = false;
    }
  }
  return { session, sent, heard, afterCancel };
}

const CLIENTS_OF_ANOTHER_KIND = new Set([
  // They speak while the server answers, without a cancel: the page never does.
  "online", "refresh", "complete-while-replying", "clear-while-replying", "clear-while-listening", "clear-then-complete", "update-after-audio",
]);

for (const golden of conversations.filter(({ transcript }) => !CLIENTS_OF_ANOTHER_KIND.has(transcript))) {
  test(`${golden.transcript}: the client keeps up with it`, () => {
    const { session, heard, afterCancel } = live(golden);
    const chunks = golden.lines.map(({ server }) => server).filter((server) => server?.choices);
    for (const id of new Set(chunks.map((chunk) => chunk.id))) {
      const key = replyKey(id.replace(/<reply (\d+)>/, "x-$1"));
      const turn = session.turns.find(({ reply }) => reply?.key === key);
      const whole = chunks.filter((chunk) => chunk.id === id).map((chunk) => chunk.choices[0].delta.content ?? "").join("");
      assert.ok(turn, `reply ${key} is shown`);
      if (turn.reply.cut) assert.ok(whole.startsWith(turn.reply.text));
      else assert.equal(turn.reply.text, whole);
      const sentMs = golden.lines.reduce((sum, { server }) => sum + (server?.id === id ? (server.audio_ms ?? 0) : 0), 0);
      assert.equal(heard.get(key) ?? 0, sentMs * 32);
    }
    assert.deepEqual(afterCancel, []);
    const ended = golden.lines.some((line) => "close" in line || "disconnect" in line || "server_drain_ms" in line);
    const idle = session.turns.every(({ reply }) => !reply || reply.cut || reply.audioEnded || !heard.get(reply.key));
    if (!ended) assert.ok(idle || session.state(1e9) === "speaking");
  });
}

test("a push-to-talk turn sends and shows what its transcript says", () => {
  const { session, sent } = live(conversations.find(({ transcript }) => transcript === "push-to-talk-turn"));
  assert.deepEqual(sent, ["input_audio_buffer.complete"]);
  assert.deepEqual(session.turns.map(({ userText }) => userText), ["go forward"]);
  assert.equal(session.state(1e9), "speaking");
});
