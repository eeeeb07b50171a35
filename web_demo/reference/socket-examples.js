// Programs that hold a connection, with the reader's own address and key filled in. Pure.

import { PLACEHOLDER_KEY } from "./request.js";

const SOCKETS = {
  speechChat: { parameter: "token", prefix: "Bearer ", query: { model: "default", asr_easyllm_id: "default", tts_easyllm_id: "default" } },
  streamSpeech: { parameter: "apikey", prefix: "", query: { easyllm_id: "default", format: "pcm", sample_rate: "16000" } },
};

/** The address of a socket; `key` may also be a token. */
export function socketAddress(name, { origin, path, project, key }) {
  const { parameter, prefix, query } = SOCKETS[name];
  const url = new URL(path.replace("{project}", encodeURIComponent(project)), origin);
  url.protocol = url.protocol.replace("http", "ws");
  const given = { ...query, [parameter]: `${prefix}${key || PLACEHOLDER_KEY}` };
  return `${url.href}?${Object.entries(given).map(([field, value]) => `${field}=${encodeURIComponent(value)}`).join("&")}`;
}

/** Code by language, as examples.js has it. */
export function socketCode(language, name, where) {
  const address = JSON.stringify(socketAddress(name, where));
  const isConversation = name === "speechChat";
  return { curl: shell, python, javascript }[language](address, isConversation);
}

const TYPED = { event_type: "conversation.message.create", role: "user", content: "What can you do?" };

function shell(address, isConversation) {
  const first = isConversation ? JSON.stringify(TYPED) : "BYE";
  return `websocat --no-close ${address} <<'MESSAGE'\n${first}\nMESSAGE\n`;
}

function python(address, isConversation) {
  return isConversation
    ? `import asyncio
import json

import websockets


async def main() -> None:
    async with websockets.connect(${address}) as socket:
        print(await socket.recv())
        await socket.send(json.dumps({"event_type": "conversation.message.create", "role": "user", "content": "What can you do?"}))
        async for frame in socket:
            message = json.loads(frame)
            print(message.get("event_type") or message.get("object") or message.get("status"))
            if message.get("event_type") == "conversation.chat.completed":
                break


asyncio.run(main())
`
    : `import asyncio

import websockets


async def main() -> None:
    async with websockets.connect(${address}) as socket:
        print(await socket.recv())
        with open("recording.pcm", "rb") as audio:
            while piece := audio.read(3200):
                await socket.send(piece)
        await socket.send("BYE")
        async for result in socket:
            print(result)


asyncio.run(main())
`;
}

function javascript(address, isConversation) {
  const act = isConversation
    ? `socket.onmessage = ({ data }) => console.log(JSON.parse(data));
socket.onopen = () => socket.send(JSON.stringify(${JSON.stringify(TYPED)}));`
    : `socket.onmessage = ({ data }) => console.log(JSON.parse(data).text ?? data);
socket.onopen = () => {
  socket.send(samples); // s16le, 16 kHz, mono, in pieces
  socket.send("BYE");
};`;
  return `const socket = new WebSocket(${address});\n${act}\n`;
}
