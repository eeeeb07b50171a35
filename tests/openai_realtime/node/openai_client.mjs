// The stock npm package `openai`: a typed turn, a function, a manual spoken turn and a cut.
// Arguments: the server's base URL, a key, a file of 24 kHz s16le audio.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

const [base, key, recording] = process.argv.slice(2);
const client = new OpenAI({ apiKey: key, baseURL: `${base}/v1` });
const realtime = new OpenAIRealtimeWS(
  { model: 'gpt-realtime', options: { rejectUnauthorized: false } },
  client,
);
const seen = [];
const waiting = [];

function settle() {
  for (const wait of [...waiting]) {
    const found = seen.slice(wait.from).find(wait.matches);
    if (found) {
      waiting.splice(waiting.indexOf(wait), 1);
      wait.resolve(found);
    }
  }
}

function until(type, from = 0, matches = () => true) {
  return new Promise((resolve) => {
    waiting.push({ from, resolve, matches: (event) => event.type === type && matches(event) });
    settle();
  });
}

realtime.on('event', (event) => {
  seen.push(event);
  settle();
});
realtime.on('error', (error) => {
  console.error(error);
  process.exit(1);
});

const say = (text) =>
  realtime.send({
    type: 'conversation.item.create',
    item: { type: 'message', role: 'user', content: [{ type: 'input_text', text }] },
  });

await until('session.created');
const lamp = { type: 'function', name: 'lamp', description: 'A lamp.', parameters: { type: 'object' } };
realtime.send({
  type: 'session.update',
  session: {
    type: 'realtime',
    tools: [lamp],
    audio: { input: { turn_detection: null, transcription: { model: 'whisper-1' } } },
  },
});
await until('session.updated');

say('light please');
realtime.send({ type: 'response.create' });
const { response: calling } = await until('response.done');
const call = calling.output.find((item) => item.type === 'function_call');
assert.equal(call.name, 'lamp');
let from = seen.length;
realtime.send({
  type: 'conversation.item.create',
  item: { type: 'function_call_output', call_id: call.call_id, output: 'it is on' },
});
realtime.send({ type: 'response.create', response: { output_modalities: ['text'] } });
const told = await until('response.output_text.done', from);
assert.equal(told.text, 'There is light.');
await until('response.done', from);

from = seen.length;
const audio = readFileSync(recording);
for (let at = 0; at < audio.length; at += 4800) {
  const piece = audio.subarray(at, at + 4800).toString('base64');
  realtime.send({ type: 'input_audio_buffer.append', audio: piece });
}
realtime.send({ type: 'input_audio_buffer.commit' });
realtime.send({ type: 'response.create' });
const heard = await until('conversation.item.input_audio_transcription.completed', from);
assert.equal(heard.transcript, 'go somewhere');
const delta = await until('response.output_audio.delta', from);
realtime.send({ type: 'response.cancel' });
const { response: cut } = await until('response.done', from);
assert.equal(cut.status, 'cancelled');
const end = seen.length;
realtime.send({
  type: 'conversation.item.truncate',
  item_id: delta.item_id,
  content_index: 0,
  audio_end_ms: 50,
});
await until('conversation.item.truncated', from);
assert.ok(!seen.slice(end).some((event) => event.type.endsWith('.delta')));
realtime.close();
console.log('ok');
process.exit(0);
