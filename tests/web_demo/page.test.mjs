// What the page knows without a document: connection, key, delays, log, exports, texts.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { Conversation, retryDelayMs } from "../../web_demo/conversation.js";
import { Credentials, KeyRefused } from "../../web_demo/credentials.js";
import { toSrt } from "../../web_demo/export.js";
import { spokenLength } from "../../web_demo/playback-transcript.js";
import { LANGUAGES } from "../../web_demo/i18n.js";
import { EventLog, lengthByFormat } from "../../web_demo/log.js";
import { configuration, readWord, request } from "../../web_demo/protocol.js";
import { DEFAULTS, Settings } from "../../web_demo/settings.js";
import { SessionConfig } from "../../web_demo/session-config.js";
import { median, stagesOf, totalOf } from "../../web_demo/waterfall.js";

class FakeClock {
  nowMs = 0;
  #timers = [];
  performance = { now: () => this.nowMs };
  setTimeout = (call, afterMs) => this.#timers.push({ call, atMs: this.nowMs + afterMs, everyMs: 0 });
  setInterval = (call, everyMs) => this.#timers.push({ call, atMs: this.nowMs + everyMs, everyMs });
  clearTimeout = (id) => id && (this.#timers[id - 1].call = null);
  clearInterval = this.clearTimeout;

  /** No timer runs; what is due meanwhile is due once, afterwards. */
  sleep(ms) {
    this.nowMs += ms;
    for (const timer of this.#timers) timer.atMs = Math.max(timer.atMs, this.nowMs);
  }

  async pass(ms) {
    const endMs = this.nowMs + ms;
    for (;;) {
      const next = this.#timers.filter(({ call, atMs }) => call && atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!next) break;
      this.nowMs = next.atMs;
      const call = next.call;
      if (next.everyMs) next.atMs += next.everyMs;
      else next.call = null;
      call();
      await settled();
    }
    this.nowMs = endMs;
    await settled();
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

class FakeSocket {
  sent = [];
  send(frame) {
    this.sent.push(typeof frame === "string" ? JSON.parse(frame) : frame);
  }
  close() {
    this.closed = true;
  }
  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
}

function openConversation(configure = () => configuration({ format: "x" })) {
  const clock = new FakeClock();
  const sockets = [];
  const statuses = [];
  const conversation = new Conversation({
    options: { token: async () => "t", services: () => ({ model: "default" }), configure },
    on: { status: (status, detail) => statuses.push([status, detail]), message: () => {}, wire: () => {} },
    connect: (url) => (sockets.push(Object.assign(new FakeSocket(), { url })), sockets.at(-1)),
    clock,
  });
  return { clock, sockets, statuses, conversation, last: () => statuses.at(-1)[0] };
}

const greet = (socket) => {
  socket.say({ status: 0, message: "", event_type: "chat.created" });
  socket.say({ status: 0, message: "", event_type: "chat.updated" });
};

test("it is ready when it is configured, and comes back with growing patience when it is lost", async () => {
  const { clock, sockets, statuses, conversation, last } = openConversation();
  conversation.open();
  await settled();
  assert.match(sockets[0].url, /^ws:.*model=default&token=t$/);
  greet(sockets[0]);
  assert.equal(last(), "ready");
  sockets[0].onclose({ code: 1006, reason: "" });
  assert.equal(last(), "waiting");
  for (const count of [2, 3]) {
    await clock.pass(5000);
    assert.equal(sockets.length, count);
    sockets.at(-1).onclose({ code: 1006, reason: "" });
  }
  const delays = statuses.filter(([status]) => status === "waiting").map(([, { retryMs }]) => retryMs);
  assert.ok(delays[0] <= 500 && delays[2] >= 1000, `${delays}`);
});

test("it does not come back to a server that refused, and says why", async () => {
  const { clock, sockets, statuses, conversation } = openConversation();
  conversation.open();
  await settled();
  sockets[0].say({ status: 40401, message: "model: there is no x", event_type: "chat.created" });
  await clock.pass(60_000);
  assert.equal(sockets.length, 1);
  assert.deepEqual(statuses.at(-1), ["refused", { message: "model: there is no x" }]);
});

test("a full server is tried again", async () => {
  const { clock, sockets, conversation } = openConversation();
  conversation.open();
  await settled();
  sockets[0].say({ status: 50301, message: "full", event_type: "chat.created" });
  sockets[0].onclose({ code: 1013, reason: "full" });
  await clock.pass(1000);
  assert.equal(sockets.length, 2);
});

test("a refused configuration is asked for again without what was refused", async () => {
  const refusals = [];
  const { sockets, conversation, last } = openConversation((refusal) => (refusals.push(refusal), configuration({ format: "x" })));
  conversation.open();
  await settled();
  sockets[0].say({ status: 0, message: "", event_type: "chat.created" });
  sockets[0].say({ status: 40003, message: "turn_detection: not supported", event_type: "chat.updated" });
  sockets[0].say({ status: 0, message: "", event_type: "chat.updated" });
  assert.deepEqual(refusals, ["", "turn_detection: not supported"]);
  assert.equal(last(), "ready");
});

test("it pings, and takes silence of the network for a loss", async () => {
  const { clock, sockets, conversation, last } = openConversation();
  conversation.open();
  await settled();
  greet(sockets[0]);
  await clock.pass(41_000);
  assert.deepEqual(sockets[0].sent.slice(1), [request.ping(), request.ping()]);
  await clock.pass(20_000);
  assert.ok(sockets[0].closed);
  assert.notEqual(last(), "ready");
});

test("a machine that slept asks before it takes the silence for a loss", async () => {
  const { clock, sockets, conversation, last } = openConversation();
  conversation.open();
  await settled();
  greet(sockets[0]);
  await clock.pass(20_000); // one ping
  clock.sleep(3_600_000);
  await clock.pass(1);
  sockets[0].say({ status: 0, message: "", event_type: "pong" });
  await clock.pass(20_000);
  assert.equal(last(), "ready");
  assert.equal(sockets.length, 1);
});

test("a connection that is never let in is lost", async () => {
  const { clock, sockets, statuses, conversation } = openConversation();
  conversation.open();
  await settled();
  await clock.pass(62_000);
  assert.deepEqual(statuses.map(([status]) => status), ["connecting", "waiting", "connecting"]);
  assert.ok(sockets[0].closed);
});

test("an address that the browser may not connect to is not tried again", async () => {
  const { conversation, statuses } = openConversation();
  conversation.connect = () => {
    throw new DOMException("insecure", "SecurityError");
  };
  conversation.open();
  await settled();
  assert.deepEqual(statuses.at(-1), ["refused", { message: "insecure" }]);
});

test("a format that the browser cannot play is not asked for", () => {
  const stored = { getItem: () => JSON.stringify({ format: "MP3_24000HZ_MONO_64KBPS" }), setItem: () => {} };
  assert.equal(new SessionConfig(new Settings(stored), () => false).format, DEFAULTS.format);
});

test("what a server refuses is left out, once", () => {
  const stored = { speechRate: 1.5, format: "OGG_OPUS_48KHZ_MONO_32KBPS", binaryDownlink: true };
  const sessionConfig = new SessionConfig(new Settings({ getItem: () => JSON.stringify(stored), setItem: () => {} }), () => true);
  const before = sessionConfig.configuration({ history: [], handsFree: true });
  assert.equal(before.downlink, "binary");
  assert.equal(before.turn_detection.silence_duration_ms, 500);
  for (const [field, message] of [["speechRate", "a.synthesis_param.speechRate: 1.5 is not"], ["format", "x.format: no"], ["turn_detection", "turn_detection: no"], ["downlink", "downlink: no"]]) {
    assert.equal(sessionConfig.refused(message), field);
  }
  const after = sessionConfig.configuration({ history: [], handsFree: true });
  assert.deepEqual([after.downlink, after.turn_detection], [undefined, undefined]);
  assert.deepEqual(after.chat_completion_with_voice_output_req.speech_synthesis_req.synthesis_param, { format: DEFAULTS.format });
  assert.equal(sessionConfig.refused("downlink: no"), null, "or it would ask for ever");
});

test("a socket that was hung up is not listened to any more", async () => {
  const { sockets, conversation, last } = openConversation();
  conversation.open();
  await settled();
  greet(sockets[0]);
  conversation.reopen();
  await settled();
  greet(sockets[1]);
  sockets[0].onclose({ code: 1006, reason: "" });
  assert.equal(last(), "ready");
});

test("delays double up to a bound and are spread", () => {
  assert.deepEqual([0, 1, 2, 20].map((attempt) => retryDelayMs(attempt, () => 1)), [500, 1000, 2000, 20000]);
  assert.equal(retryDelayMs(0, () => 0), 250);
});

test("a key is exchanged for a token; a server without tokens gets the key; a wrong key is told apart from a lost network", async () => {
  const respond = (status, answer) => async (_path, { headers, body }) => {
    assert.equal(headers.Authorization, "Bearer secret");
    const { user, ...asked } = JSON.parse(body);
    assert.deepEqual(asked, { endpoints: ["conversation"] });
    assert.match(user, /^[0-9a-f]{32}$/);
    return { status, ok: status < 300, json: async () => answer };
  };
  const open = () => new Credentials("#key=secret");
  assert.equal(await open().token("conversation", respond(200, { token: "short" })), "short");
  assert.equal(await open().token("conversation", respond(404)), "secret");
  await assert.rejects(open().token("conversation", respond(401)), KeyRefused);
  await assert.rejects(open().token("conversation", respond(503)), TypeError);
});

test("the stages of a turn add up to the time until it was heard", () => {
  assert.deepEqual(stagesOf({ end: 100, text: 150, token: 200, audio: 260, heard: 300 }).map(({ lengthMs }) => lengthMs), [50, 50, 60, 40]);
  const typed = stagesOf({ end: 100, audio: 260, token: 200, heard: 300 });
  assert.deepEqual([typed[0].lengthMs, totalOf(typed)], [0, 200]);
  assert.equal(totalOf(stagesOf({ end: 100, text: 50, heard: 130 })), 30, "text before the end of speech costs nothing");
  assert.equal(stagesOf({ end: 1 }), null);
  assert.deepEqual([median([]), median([3, 1, 2]), median([4, 1, 2, 3])], [null, 2, 2.5]);
});

test("heard text grows with what is played, ends at words, and is whole at the end", () => {
  const text = "Hello there. How are you?";
  let before = 0;
  for (let playedMs = 0; playedMs <= 2000; playedMs += 50) {
    const length = spokenLength(text, { playedMs, totalMs: 2000, complete: true });
    assert.ok(length >= before);
    assert.ok(length === 0 || length === text.length || !/\w/.test(text[length]) || !/\w/.test(text[length - 1]), text.slice(0, length));
    before = length;
  }
  assert.equal(before, text.length);
  assert.equal(spokenLength("你好吗", { playedMs: 700, totalMs: 1050, complete: true }), 2);
});

test("the log is written as a golden transcript", () => {
  const log = new EventLog(1000, lengthByFormat("PCM_24000HZ_MONO_16BIT"));
  log.add("server", '{"status":0,"message":"","event_type":"chat.created"}', 1002);
  log.add("client", new Uint8Array(1280), 1100);
  log.add("client", JSON.stringify(request.played(1, 20)), 1150);
  log.add("server", JSON.stringify({ status: "accepting", usage: null, audioFrame: Buffer.alloc(4800).toString("base64"), id: "chatcmpl-a-1" }), 1200);
  log.add("server", '{"choices":[],"created":5,"id":"chatcmpl-a-1"}', 1210);
  assert.deepEqual(log.toJsonLines("A test.", 2000).trim().split("\n").map(JSON.parse), [
    { transcript: "recorded", about: "A test.", dialect: "speech_chat" },
    { at_ms: 2, server: { status: 0, message: "", event_type: "chat.created" } },
    { at_ms: 100, client_audio_ms: 40 },
    { at_ms: 150, client: { event_type: "conversation.audio.played", reply: "<reply 1>", played_ms: 20 } },
    { at_ms: 200, server: { status: "accepting", usage: null, id: "<reply 1>", audio_ms: 100 } },
    { at_ms: 210, server: { choices: [], id: "<reply 1>" } },
    { at_ms: 1000, end: true },
  ]);
});

test("subtitles", () => {
  assert.equal(toSrt([{ text: "go", beginMs: 320, endMs: 3_661_005 }]), "1\n00:00:00,320 --> 01:01:01,005\ngo\n");
});

test("words are read in both notations", () => {
  const word = { beginMs: 660, endMs: 1148, text: "这是" };
  assert.deepEqual(readWord("Word(beginTime=660, endTime=1148, text=这是, punctuation=, fixed=false)"), word);
  assert.equal(readWord("nonsense"), null);
});

test("what is stored is used when it is sound; a key is never stored", () => {
  const stored = new Map([["voicechat.settings", '{"speechRate":1.5,"model":7,"unknown":1}']]);
  const store = { getItem: (name) => stored.get(name) ?? null, setItem: (name, value) => stored.set(name, value) };
  const settings = new Settings(store);
  assert.deepEqual([settings.get("speechRate"), settings.get("model"), settings.get("unknown")], [1.5, DEFAULTS.model, undefined]);
  settings.set("voice", "x");
  assert.ok(!/key/i.test(stored.get("voicechat.settings")));
});

const PAGES = new URL("../../web_demo/", import.meta.url);
const sources = readdirSync(PAGES, { recursive: true }).filter((name) => /\.(js|html|css|svg)$/.test(name)).map((name) => [name, readFileSync(new URL(name, PAGES), "utf8")]);

test("both languages have every text that the page asks for", () => {
  assert.deepEqual(Object.keys(LANGUAGES.zh), Object.keys(LANGUAGES.en));
  for (const [name, source] of sources) {
    for (const [, key] of source.matchAll(/data-i18n(?:-label|-placeholder)?="([\w.]+)"|\btext\("([\w.]+)"/g)) {
      if (key) assert.ok(key in LANGUAGES.en, `${name}: ${key}`);
    }
  }
});

test("files are small, ask no other host and hold nothing inline", () => {
  for (const [name, source] of sources) {
    assert.ok(source.split("\n").length <= (name.endsWith(".js") ? 300 : 400), name);
    assert.ok(!/https?:\/\/(?!www\.w3\.org\/2000\/svg|localhost|example\.com\b)[a-z]/.test(source), name);
    assert.ok(!/<script(?![^>]*src=)|\son\w+="|style="/.test(source), name);
  }
});
