// Plays the scenario in Node. Arguments: the server's base URL, a key.
import assert from 'node:assert/strict';
import * as agents from '@openai/agents-realtime';
import { play } from './agents_scenario.mjs';

const [base, apiKey] = process.argv.slice(2);
const url = `${base.replace('http', 'ws')}/v1/realtime?model=gpt-realtime`;
const result = await play(agents, { url, apiKey });
assert.deepEqual(result.errors, []);
assert.deepEqual(result.said, ['Let me see. ', 'There is light.']);
assert.equal(result.agentNow, 'Other');
assert.deepEqual(result.marks, ['tool', 'handoff', 'guardrail']);
assert.ok(result.history.filter((role) => role === 'user').length >= 3, result.history.join());
assert.ok(result.history.includes('function_call'), result.history.join());
assert.ok(result.audioBytes > 0);
console.log('ok');
process.exit(0);
