// The stock npm package `@openai/agents-realtime` with a hosted MCP tool: listed, called, answered;
// then a call that the client approves. Arguments: the server's base URL, a key, the MCP server.
import assert from 'node:assert/strict';
import { hostedMcpTool } from '@openai/agents-core';
import { RealtimeAgent, RealtimeSession } from '@openai/agents-realtime';

const [base, apiKey, serverUrl] = process.argv.slice(2);
const url = `${base.replace('http', 'ws')}/v1/realtime?model=gpt-realtime`;

async function play(requireApproval) {
  const tool = hostedMcpTool({ serverLabel: 'weather', serverUrl, ...(requireApproval ?? {}) });
  const agent = new RealtimeAgent({ name: 'First', instructions: 'Be brief.', tools: [tool] });
  const session = new RealtimeSession(agent, { transport: 'websocket', model: 'gpt-realtime' });
  const errors = [];
  const calls = [];
  let listed = [];
  let asked = 0;
  session.on('error', (error) => errors.push(JSON.stringify(error)));
  session.on('mcp_tools_changed', (tools) => (listed = tools.map(({ name }) => name)));
  session.on('mcp_tool_call_completed', (_context, _agent, call) => calls.push(call));
  session.on('tool_approval_requested', (_context, _agent, request) => {
    asked += 1;
    session.approve(request.approvalItem);
  });
  const said = () =>
    session.history
      .flatMap((item) => (item.role === 'assistant' ? item.content : []))
      .map((part) => part.transcript);
  async function until(condition) {
    while (!condition()) {
      assert.deepEqual(errors, []);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
  await session.connect({ apiKey, url });
  await until(() => listed.includes('weather'));
  session.sendMessage('how is the weather');
  await until(() => said().includes('It rains.'));
  assert.equal(calls[0].output, 'it rains in Ulm');
  session.close();
  return asked;
}

assert.equal(await play(), 0);
assert.equal(await play({ requireApproval: 'always', onApproval: undefined }), 1);
console.log('ok');
process.exit(0);
