// What the API reference makes of the OpenAPI document: example bodies, and code in three languages.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

import { audioOfEvents, audioType, pretty } from "../../web_demo/reference/answer.js";
import { exampleBody, exampleOf, formFields } from "../../web_demo/reference/example-body.js";
import { codeFor, pyValue, quoted } from "../../web_demo/reference/examples.js";
import { addressOf } from "../../web_demo/reference/request.js";
import { socketAddress, socketCode } from "../../web_demo/reference/socket-examples.js";

const { paths, components } = JSON.parse(readFileSync(new URL("../../protocol/openapi.json", import.meta.url)));
const resolve = (reference) => components.schemas[reference.split("/").at(-1)];
const KEY = "it's a \"key\"";

/** Every operation with each form of its body. */
const requests = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).flatMap(([method, { requestBody }]) => {
    const url = addressOf("http://host:8000", path, { path: [["project", "p 1"], ["taskId", ""]], query: [["format", "pcm"], ["empty", ""]] });
    const contents = Object.entries(requestBody?.content ?? { "": {} });
    return contents.map(([type, { schema }]) => ({ method: method.toUpperCase(), url, key: KEY, headers: {}, body: bodyOf(type, schema) }));
  }),
);

function bodyOf(type, schema) {
  if (type === "application/json") return { kind: "json", text: JSON.stringify(exampleBody(schema, resolve), null, 2) };
  if (type === "multipart/form-data") return { kind: "form", fields: formFields(schema, resolve) };
  return type ? { kind: "bytes", name: "recording.wav" } : { kind: "none" };
}

test("every operation has code that its language can read", () => {
  assert.ok(requests.length > 20);
  for (const request of requests) {
    new vm.Script(`async () => {${codeFor("javascript", request)}}`);
    const shell = spawnSync("sh", ["-n"], { input: codeFor("curl", request) });
    assert.equal(shell.status, 0, shell.stderr.toString());
  }
  const programs = JSON.stringify(requests.map((request) => codeFor("python", request)));
  const check = spawnSync("python3", ["-c", "import json, sys\nfor code in json.load(sys.stdin): compile(code, 'example', 'exec')"], { input: programs });
  assert.equal(check.status, 0, check.stderr.toString());
});

test("the key and the address are the reader's", () => {
  const [request] = requests;
  assert.ok(codeFor("curl", request).includes(`-H ${quoted(`Authorization: Bearer ${KEY}`)}`));
  assert.ok(codeFor("python", request).includes(JSON.stringify(`Bearer ${KEY}`)));
  assert.ok(codeFor("javascript", request).includes('"http://host:8000/'));
  assert.match(codeFor("curl", { ...request, key: "" }), /Bearer YOUR_KEY/);
  assert.ok(!codeFor("curl", { ...request, key: null }).includes("Authorization"));
});

test("what is filled in stands where it belongs", () => {
  assert.equal(addressOf("http://h", "/p/{project}/t/{taskId}", { path: [["project", "a/b"], ["taskId", ""]], query: [["x", "1&2"], ["y", ""]] }), "http://h/p/a%2Fb/t/{taskId}?x=1%262");
});

test("an answer that is audio is saved, one that is streamed is read as it comes", () => {
  const speech = { method: "POST", url: "http://h/v1/audio/speech", key: "k", headers: {}, body: { kind: "json", text: '{"input": "x", "response_format": "wav"}' } };
  assert.match(codeFor("curl", speech), /-o speech\.wav/);
  assert.match(codeFor("python", speech), /open\("speech\.wav", "wb"\)/);
  const chat = { ...speech, url: "http://h/v1/chat/completions", body: { kind: "json", text: '{"stream": true}' } };
  assert.match(codeFor("curl", chat), /curl 'http[^\n]+ \\\n {2}-N/);
  assert.match(codeFor("python", chat), /stream=True[\s\S]*iter_lines/);
});

test("JSON becomes Python", () => {
  assert.equal(pyValue({ a: true, b: [null, false, 1.5], c: "x'\"" }), `{"a": True, "b": [None, False, 1.5], "c": "x'\\""}`);
  assert.match(pyValue({ long: "x".repeat(80), more: [1] }, 4), /^\{\n {8}"long": "x+",\n {8}"more": \[1\],\n {4}\}$/);
});

test("example bodies hold what is required", () => {
  assert.deepEqual(exampleBody(components.schemas.OpenAISpeechRequest, resolve).model, "default");
  const both = exampleBody(components.schemas.VoiceOutputRequest, resolve);
  assert.equal(both.chat_completion_req.messages[0].role, "user");
  assert.equal(both.speech_synthesis_req.easyllm_id, "default");
  assert.match(exampleBody(components.schemas.TranscriptionRequest, resolve).audio_url, /^https:/);
  assert.equal(exampleOf({ $ref: "#/self" }, () => ({ $ref: "#/self" })), null, "circles end");
  const fields = formFields(components.schemas.TranscriptionForm, resolve);
  assert.deepEqual(fields.map(({ name, isFile }) => [name, isFile]), [["data", false], ["audio_file", true]]);
  assert.deepEqual(JSON.parse(fields[0].value), { easyllm_id: "default" });
});

test("sockets are opened with the reader's key, by code that can be read", () => {
  const where = { origin: "https://h:8", path: "/projects/{project}/s", project: "p", key: "k 1" };
  assert.equal(socketAddress("streamSpeech", where), "wss://h:8/projects/p/s?easyllm_id=default&format=pcm&sample_rate=16000&apikey=k%201");
  assert.match(socketAddress("speechChat", where), /token=Bearer%20k%201$/);
  for (const name of ["speechChat", "streamSpeech"]) {
    new vm.Script(socketCode("javascript", name, where));
    assert.equal(spawnSync("sh", ["-n"], { input: socketCode("curl", name, where) }).status, 0);
    const check = spawnSync("python3", ["-c", "import sys; compile(sys.stdin.read(), 'x', 'exec')"], { input: socketCode("python", name, where) });
    assert.equal(check.status, 0, check.stderr.toString());
  }
});

test("the audio in a stream of events is found", () => {
  const events = 'data:{"status":"accepting","audioFrame":"SUQz"}\n\ndata:{"audioFrame":"BAA="}\n\ndata:{"audioFrame":null}\n\n';
  const audio = audioOfEvents(events);
  assert.deepEqual([...audio], [0x49, 0x44, 0x33, 4, 0]);
  assert.equal(audioType(audio), "audio/mpeg");
  assert.equal(audioType(new Uint8Array([1, 2])), "");
  assert.equal(pretty("{"), "{");
});
