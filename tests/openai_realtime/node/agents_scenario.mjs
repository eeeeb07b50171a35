// What is done with the stock package `@openai/agents-realtime`, in Node and in a browser: a typed
// turn with a tool, a hand-off, a guardrail that interrupts, and the history. Every event is read by
// the package's own schemas.
export async function play({ RealtimeAgent, RealtimeSession, tool }, { url, apiKey }) {
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

  const errors = [];
  const marks = [];
  let done = 0;
  let audioBytes = 0;
  session.transport.on('*', (event) => {
    if (event.type === 'error') errors.push(event);
    if (event.type === 'response.done') done += 1;
  });
  session.on('error', (error) => errors.push(error));
  session.on('agent_tool_end', () => marks.push('tool'));
  session.on('agent_handoff', () => marks.push('handoff'));
  session.on('guardrail_tripped', () => marks.push('guardrail'));
  session.on('audio', (event) => (audioBytes += event.data.byteLength));

  async function until(condition) {
    while (!condition()) {
      if (errors.length) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  await session.connect({ apiKey, url });
  session.sendMessage('light please');
  await until(() => marks.includes('tool') && done >= 2);
  const said = session.history
    .flatMap((item) => (item.role === 'assistant' ? item.content : []))
    .map((part) => part.transcript);
  session.sendMessage('give me to the other');
  await until(() => marks.includes('handoff') && done >= 4);
  const agentNow = session.currentAgent.name;
  session.sendMessage('swear');
  await until(() => marks.includes('guardrail') && done >= 5);
  await until(() => session.history.length >= 9);
  const history = session.history.map((item) => item.role ?? item.type);
  session.close();
  return { errors: errors.map((error) => JSON.stringify(error)), marks, audioBytes, said, agentNow, history };
}
