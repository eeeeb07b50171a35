// The playback worklet itself, driven quantum by quantum as a browser drives it.
import assert from "node:assert/strict";
import { test } from "node:test";

const QUANTUM = 128;
const RATE_HZ = 24000;
const FIRST_TARGET_SAMPLES = (RATE_HZ * 60) / 1000;

let Processor;
globalThis.sampleRate = RATE_HZ;
globalThis.AudioWorkletProcessor = class {
  port = { sent: [], postMessage: (message) => this.port.sent.push(message) };
};
globalThis.registerProcessor = (_name, processor) => (Processor = processor);
await import("../../web_demo/audio/player-worklet.js");

function openPlayer() {
  const processor = new Processor();
  const post = (message) => processor.port.onmessage({ data: message });
  const render = () => {
    const output = new Float32Array(QUANTUM);
    processor.process([], [[output]]);
    return output;
  };
  const told = () => processor.port.sent.splice(0);
  return { post, render, told };
}

const loud = (length) => new Float32Array(length).fill(0.5);
const isSilent = (samples) => samples.every((sample) => sample === 0);

test("it begins when it holds enough, or when there is no more", () => {
  const { post, render, told } = openPlayer();
  post({ type: "audio", reply: 1, samples: loud(FIRST_TARGET_SAMPLES - 1) });
  assert.ok(isSilent(render()));
  post({ type: "audio", reply: 1, samples: loud(1) });
  assert.ok(!isSilent(render()));
  assert.deepEqual(told(), [{ type: "started", reply: 1, samples: 0 }]);

  const short = openPlayer();
  short.post({ type: "audio", reply: 1, samples: loud(10) });
  assert.ok(isSilent(short.render()));
  short.post({ type: "end", reply: 1 });
  assert.ok(!isSilent(short.render()));
  assert.deepEqual(short.told().at(-1), { type: "drained", reply: 1, samples: 10 });
});

test("a stopped reply is silent within one quantum, without a click", () => {
  const { post, render, told } = openPlayer();
  post({ type: "audio", reply: 1, samples: loud(10_000) });
  render();
  told();
  post({ type: "stop" });
  const last = render();
  assert.ok(Math.max(...last.map((sample, index) => Math.abs(sample - (last[index - 1] ?? 0.5)))) < 0.02, "it fades");
  assert.ok(isSilent(last.subarray(64)));
  assert.ok(isSilent(render()));
  assert.deepEqual(told(), [{ type: "stopped", reply: 1, samples: QUANTUM }]);
});

test("what is played is exactly what came, in order, across pieces of any size", () => {
  const { post, render } = openPlayer();
  const sent = Float32Array.from({ length: 3000 }, (_, index) => (index + 1) / 4096);
  for (let at = 0, size = 1; at < sent.length; at += size, size = (size * 3) % 251) post({ type: "audio", reply: 1, samples: sent.slice(at, at + size) });
  post({ type: "end", reply: 1 });
  const heard = Array.from({ length: 23 }, () => [...render()]).flat();
  assert.deepEqual(heard.slice(0, 23 * QUANTUM), [...sent.subarray(0, 23 * QUANTUM)]);
});

test("starved, it waits for more and then keeps more", () => {
  const { post, render, told } = openPlayer();
  post({ type: "audio", reply: 1, samples: loud(FIRST_TARGET_SAMPLES) });
  while (!told().some(({ type }) => type === "starved")) render();
  post({ type: "audio", reply: 1, samples: loud(FIRST_TARGET_SAMPLES) });
  assert.ok(isSilent(render().subarray(64)));
  post({ type: "audio", reply: 1, samples: loud(FIRST_TARGET_SAMPLES / 2) });
  assert.ok(!isSilent(render()));
});

test("positions never go back and end at the reply's length, over many replies", () => {
  const { post, render, told } = openPlayer();
  for (let reply = 1; reply <= 20; reply += 1) {
    post({ type: "audio", reply, samples: loud(24_000) });
    post({ type: "end", reply });
    for (let quantum = 0; quantum < 190; quantum += 1) render();
    const messages = told();
    const positions = messages.map(({ samples }) => samples);
    assert.deepEqual(positions, [...positions].sort((a, b) => a - b));
    assert.deepEqual(messages.at(-1), { type: "drained", reply, samples: 24_000 });
  }
});
