// The wire of speech-chat, as values: what the page sends becomes frames, frames become what the page acts on.
// Pure: no DOM, no socket, no clock. The contract is protocol/README.md; `node --test` plays its transcripts.

/** @typedef {number|string} ReplyKey  The number at the end of a reply's id, or the whole id where there is none. */

export const MICROPHONE_RATE_HZ = 16000;

const ANSWERS = new Map([
  ["chat.created", "open"],
  ["chat.updated", "update"],
  ["chat.update", "update"], // as a table of the original document has it
  ["input_audio_buffer.completed", "complete"],
  ["input_audio_buffer.cleared", "clear"],
  ["conversation.cleared", "forget"],
  ["conversation.chat.canceled", "cancel"],
  ["pong", "ping"],
]);

/** One constructor for each message up. */
export const request = {
  update: (configuration) => ({ event_type: "chat.update", message: JSON.stringify(configuration) }),
  complete: () => ({ event_type: "input_audio_buffer.complete" }),
  clear: () => ({ event_type: "input_audio_buffer.clear" }),
  forget: () => ({ event_type: "conversation.clear" }),
  cancel: () => ({ event_type: "conversation.chat.cancel" }),
  played: (reply, playedMs) => ({ event_type: "conversation.audio.played", reply, played_ms: Math.round(playedMs) }),
  say: (content) => ({ event_type: "conversation.message.create", role: "user", content }),
  answerTool: (callId, content) => ({ event_type: "conversation.message.create", role: "tool", tool_call_id: callId, content }),
  ping: () => ({ event_type: "ping" }),
};

/**
 * The configuration of a conversation, in the document's nesting. What is not given stays at the server's default.
 *
 * `messages` stand before the conversation; `turnDetection` and `downlink` are asked for only when set, because a
 * server that does not have them refuses the whole update and names the field.
 */
export function configuration({ messages = [], model, voice, format, speechRate = 1, asrMode = "online", turnDetection, downlink }) {
  const synthesis = { format, ...(voice && { voice }), ...(speechRate !== 1 && { speechRate }) };
  return {
    create_transcription_task_req: {
      heartbeat: true, // an open microphone may be silent for as long as it likes
      speech_recognition_param: { sample_rate: MICROPHONE_RATE_HZ, format: "pcm" },
    },
    chat_completion_with_voice_output_req: {
      chat_completion_req: { messages, ...(model && { model }) },
      speech_synthesis_req: { synthesis_param: synthesis },
    },
    asr_mode: asrMode,
    ...(turnDetection && { turn_detection: turnDetection }),
    ...(downlink && { downlink }),
  };
}

/**
 * Read one frame of the server: a string, or the ArrayBuffer of a binary one.
 *
 * Never throws: a frame that is none of the protocol's becomes `{kind: "unknown"}`, and the caller ignores it.
 */
export function decode(frame) {
  if (typeof frame !== "string") return decodeBinary(frame);
  let message;
  try {
    message = JSON.parse(frame);
  } catch {
    return { kind: "unknown" };
  }
  if (message === null || typeof message !== "object" || Array.isArray(message)) return { kind: "unknown" };
  // The untyped messages are told apart by one key each.
  if (typeof message.event_type === "string") return decodeTyped(message);
  if ("is_sentence_end" in message) return decodeRecognition(message);
  if (Array.isArray(message.choices)) return decodeChunk(message);
  if ("audioFrame" in message) return decodeAudio(message);
  return { kind: "unknown" };
}

function decodeTyped({ event_type: type, status = 0, message = "", reason = null, ...fields }) {
  if (ANSWERS.has(type)) return { kind: "answer", to: ANSWERS.get(type), status, message, reason };
  switch (type) {
    case "conversation.chat.completed":
      return { kind: "turn_completed" };
    case "input_audio_buffer.speech_started":
      return { kind: "speech_started", atMs: fields.audio_start_ms };
    case "input_audio_buffer.speech_stopped":
      return { kind: "speech_stopped", atMs: fields.audio_end_ms };
    case "conversation.chat.latency":
      return { kind: "latency", reply: replyKey(fields.id), totalMs: fields.total_ms, stagesMs: fields.stages_ms };
    case "conversation.picture":
      return { kind: "picture", url: fields.url ?? "", prompt: fields.prompt ?? "", message };
    case "error":
      return { kind: "error", status, message };
    default:
      return { kind: "unknown" };
  }
}

export function decodeRecognition({ text, begin_time, end_time, words, is_sentence_end }) {
  return { kind: "recognition", text: text ?? "", beginMs: begin_time, endMs: end_time, words: (words ?? []).map(readWord).filter(Boolean), final: Boolean(is_sentence_end) };
}

function decodeChunk({ id, choices }) {
  const choice = choices[0] ?? {};
  const { content, tool_calls: toolCalls = [] } = choice.delta ?? {};
  return { kind: "text", reply: replyKey(id), text: content ?? "", toolCalls, finish: choice.finish_reason ?? null };
}

function decodeAudio({ id, status, audioFrame, usage }) {
  if (status === "finish") return { kind: "audio_end", reply: replyKey(id), characters: usage?.characters ?? 0 };
  return { kind: "audio", reply: replyKey(id), payload: typeof audioFrame === "string" ? fromBase64(audioFrame) : new Uint8Array(0) };
}

const BINARY_HEADER_BYTES = 16;

/** A frame of `downlink: "binary"`, big-endian: u32 reply, u32 sequence, u64 media position in ms, then the payload. */
function decodeBinary(buffer) {
  if (!(buffer instanceof ArrayBuffer) || buffer.byteLength < BINARY_HEADER_BYTES) return { kind: "unknown" };
  const header = new DataView(buffer, 0, BINARY_HEADER_BYTES);
  return {
    kind: "audio",
    reply: header.getUint32(0),
    sequence: header.getUint32(4),
    positionMs: Number(header.getBigUint64(8)),
    payload: new Uint8Array(buffer, BINARY_HEADER_BYTES),
  };
}

/** @returns {ReplyKey} text chunks, JSON audio and binary audio of one reply have the same key. */
export function replyKey(id) {
  const number = /-(\d{1,15})$/.exec(id ?? "");
  return number ? Number(number[1]) : String(id ?? "");
}

function fromBase64(text) {
  let binary;
  try {
    binary = atob(text);
  } catch {
    return new Uint8Array(0);
  }
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

const WORD = /^Word\(beginTime=(\d+), endTime=(\d+), text=(.*), punctuation=(.*), fixed=(true|false)\)$/s;

/** Read one entry of a result's `words`: the document's own notation, or an object (`words=json`); null for neither. */
export function readWord(word) {
  if (word && typeof word === "object") return { beginMs: word.begin_time ?? word.begin, endMs: word.end_time ?? word.end, text: word.text };
  const parts = WORD.exec(word);
  return parts && { beginMs: Number(parts[1]), endMs: Number(parts[2]), text: parts[3] + parts[4] };
}
