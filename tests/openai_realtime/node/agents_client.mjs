// The stock npm package `@openai/agents-realtime`: a typed turn with a tool, a hand-off, a
// guardrail that interrupts, and the history. Every event is read by the package's own schemas.
// Arguments: the server's base URL, a key.
import assert from 'node:assert/strict';
import { RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';

const [base, key] = process.argv.slice(2);
const lamp = tool({
  name: 'lamp',
  description: 'Switch the lamp.',
  parameters: { type: 'object', properties: {}, required: [], additionalProperties: false },
  strict: false,
  execute: async () => 'it is on',
});
const other = new RealtimeAgent({ name: 'Other', instructions: 'You are the other.' });
const agent = new RealtimeAgent({
  name: 'First',
  instructions: 'You are the first.',
  tools: [lamp],
  handoffs: [other],
});
const guardrail = {
  name: 'no swearing',
  async execute({ agentOutput }) {
    return { tripwireTriggered: agentOutput.includes('damn'), outputInfo: {} };
  },
};
const session = new RealtimeSession(agent, {
  transport: 'websocket',
  model: 'gpt-realtime',
  outputGuardrails: [guardrail],
  outputGuardrailSettings: { debounceTextLength: 5 },
  config: { audio: { input: { turnDetection: { type: 'server_vad' } } } },
});

const refused = [];
const seen = [];
let changed = () => {};
session.transport.on('*', (event) => {
  seen.push(event.type);
  if (event.type === 'error') refused.push(event);
  changed();
});
session.on('error', (error) => {
  console.error(JSON.stringify(error));
  process.exit(1);
});
const marks = [];
session.on('agent_tool_end', () => marks.push('tool'));
session.on('agent_handoff', () => marks.push('handoff'));
session.on('guardrail_tripped', () => marks.push('guardrail'));
session.on('audio', () => marks.push('audio'));

async function until(condition) {
  while (!condition()) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
const count = (type) => seen.filter((each) => each === type).length;

await session.connect({ apiKey: key, url: `${base.replace('http', 'ws')}/v1/realtime?model=gpt-realtime` });
session.sendMessage('light please');
await until(() => marks.includes('tool') && count('response.done') >= 2);
session.sendMessage('give me to the other');
await until(() => marks.includes('handoff') && count('response.done') >= 4);
assert.equal(session.currentAgent.name, 'Other');
session.sendMessage('swear');
await until(() => marks.includes('guardrail') && count('response.done') >= 5);
await until(() => session.history.length >= 9);
const roles = session.history.map((item) => item.role ?? item.type);
assert.ok(roles.filter((role) => role === 'user').length >= 3, roles.join());
assert.ok(roles.includes('function_call'), roles.join());
assert.ok(marks.includes('audio'));
assert.deepEqual(refused, []);
session.close();
console.log('ok');
process.exit(0);
