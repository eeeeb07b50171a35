// Pipecat's stock JavaScript client and its WebSocket transport: a typed turn, a spoken one
// that interrupts it, a function, and a message that is refused. Node has no sound card, so the media manager
// plays into a counter and records from a file.
// Arguments: the address, a file of 16 kHz s16le audio.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

globalThis.window ??= globalThis;
const { PipecatClient } = await import('@pipecat-ai/client-js');
const { WebSocketTransport } = await import('@pipecat-ai/websocket-transport');

const [wsUrl, recording] = process.argv.slice(2);
let record = () => {};
let played = 0;
const mediaManager = new Proxy(
  {
    setUserAudioCallback: (callback) => (record = callback),
    bufferBotAudio: (samples) => (played += samples.length),
    tracks: () => ({ local: {} }),
    selectedMic: {},
    selectedSpeaker: {},
    isMicEnabled: true,
  },
  { get: (target, name) => (name in target ? target[name] : name === 'then' ? undefined : async () => []) },
);
const marks = [];
const note = (name) => (data) => marks.push([name, data]);
const client = new PipecatClient({
  transport: new WebSocketTransport({ wsUrl, mediaManager }),
  enableMic: false,
  callbacks: {
    onBotReady: note('ready'),
    onBotLlmText: note('text'),
    onBotTtsText: note('spoken'),
    onBotStartedSpeaking: note('started'),
    onBotStoppedSpeaking: note('stopped'),
    onUserTranscript: note('transcript'),
    onUserStartedSpeaking: note('user'),
    onMetrics: note('metrics'),
    onLLMFunctionCallStopped: note('call'),
    onError: note('error'),
  },
});
async function until(condition) {
  while (!condition()) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
const of = (name) => marks.filter(([each]) => each === name).map(([, data]) => data);

await client.connect();
assert.ok(of('ready')[0].version.startsWith('2.'));
await client.sendText('hello');
await until(() => of('started').length === 1 && played > 0);
assert.ok(of('text').map(({ text }) => text).join('').startsWith('This is a long story'));

const audio = readFileSync(recording);
for (let at = 0; at < audio.length; at += 3200) {
  record(audio.buffer.slice(audio.byteOffset + at, audio.byteOffset + at + 3200));
  await new Promise((resolve) => setTimeout(resolve, 100));
}
await until(() => of('transcript').some(({ final }) => final) && of('started').length === 2);
assert.ok(of('user').length >= 1);
assert.ok(of('spoken').some(({ text }) => text === 'Yes.'));
assert.ok(of('metrics').length >= 1);

const asked = [];
client.registerFunctionCallHandler('lamp', async (call) => {
  asked.push(call.arguments);
  return { on: true };
});
await client.sendText('light please');
await until(() => of('spoken').some(({ text }) => text === 'There is light.'));
assert.deepEqual(asked, [{ on: true }]);
assert.equal(of('call')[0].cancelled, false);
assert.deepEqual(of('error'), []);
await assert.rejects(client.sendClientRequest('order', {}));
await client.disconnect();
console.log('ok');
process.exit(0);
