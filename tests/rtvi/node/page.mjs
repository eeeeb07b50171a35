// Pipecat's stock JavaScript client in a browser, with its WebSocket transport and that of its media
// managers that needs nothing from the internet: a typed turn, then one that the (fake) microphone speaks and that interrupts it.
// The query: the address.
import { PipecatClient } from '@pipecat-ai/client-js';
import { WavMediaManager, WebSocketTransport } from '@pipecat-ai/websocket-transport';

const marks = [];
const note = (name) => (data) => marks.push([name, data]);
const of = (name) => marks.filter(([each]) => each === name).map(([, data]) => data);
window.marks = marks;

async function until(condition) {
  while (!condition()) {
    if (of('error').length) throw new Error(JSON.stringify(of('error')[0]));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function play() {
  const wsUrl = new URLSearchParams(location.search).get('url');
  const transport = new WebSocketTransport({ wsUrl, mediaManager: new WavMediaManager() });
  const client = new PipecatClient({
    transport,
    enableMic: false,
    callbacks: {
      onBotReady: note('ready'),
      onBotLlmText: note('text'),
      onBotTtsText: note('spoken'),
      onBotStartedSpeaking: note('started'),
      onUserTranscript: note('transcript'),
      onUserStartedSpeaking: note('user'),
      onTrackStarted: note('track'),
      onError: note('error'),
    },
  });
  await client.connect();
  await client.sendText('hello');
  await until(() => of('started').length === 1);
  client.enableMic(true);
  await until(() => of('transcript').some(({ final }) => final) && of('started').length === 2);
  await until(() => of('spoken').some(({ text }) => text === 'Yes.'));
  const result = {
    version: of('ready')[0].version,
    text: of('text').map(({ text }) => text).join(''),
    heard: of('transcript').filter(({ final }) => final).map(({ text }) => text),
    began: of('user').length,
  };
  await client.disconnect();
  return result;
}

play().then(
  (result) => (window.result = result),
  (error) => (window.result = { error: String(error) }),
);
