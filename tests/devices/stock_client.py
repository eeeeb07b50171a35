"""Runs ``xiaozhi-sdk`` in a process of its own and prints what it was told.

    python stock_client.py URL MODE STEPS

``STEPS`` is a JSON list: ``["speak", WAV]``, ``["silence", SECONDS]``, ``["stop"]``,
``["text", TEXT]``, ``["abort"]``, ``["heard", PACKETS]`` (wait until so many were
played), ``["wait", STATE, COUNT]`` (wait for so many ``tts`` messages). The library and
the server do not share a process: each brings a libopus of its own.
"""

import asyncio
import json
import sys
import wave
from typing import Any

from xiaozhi_sdk import XiaoZhiWebsocket

MAC = "98:3d:ae:00:11:22"
FRAME_BYTES = 1920
"""60 ms of s16le at 16 kHz."""
WEATHER = {
    "name": "self.get_weather",
    "description": "The weather in a city",
    "inputSchema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PHOTO = {
    "name": "self.camera.take_photo",
    "description": "Take a photo and answer a question about it",
    "inputSchema": {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    },
    "is_async": True,
}
PIXEL = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01 no camera is here \xff\xd9"


class Stock:
    """The client, with what it was told."""

    def __init__(self, url: str, mode: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.asked: list[Any] = []
        self.client = XiaoZhiWebsocket(
            self._take, ota_url=f"{url}/xiaozhi/ota/", audio_sample_rate=16_000
        )
        self.client.mode = mode

    async def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def weather(self, arguments: dict[str, Any]) -> tuple[dict[str, str], bool]:
        self.asked.append(arguments)
        return {"weather": "sunny"}, False

    async def photo(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        answer, failed = await self.client.async_analyze_image(PIXEL, arguments["question"])
        self.asked.append(answer)
        return answer, failed

    async def run(self, steps: list[list[Any]]) -> None:
        # The client copies its tools deeply, which a function survives and a method does not.
        tools = [
            {**WEATHER, "tool_func": lambda arguments: self.weather(arguments)},
            {**PHOTO, "tool_func": lambda arguments: self.photo(arguments)},
        ]
        await self.client.set_mcp_tool(tools)
        if not await self.client.init_connection(MAC):
            raise SystemExit("it did not connect")
        for step in steps:
            await self.perform(step)
        await asyncio.sleep(0.3)
        await self.client.close()

    async def perform(self, step: list[Any]) -> None:
        match step:
            case ["speak", str(path)]:
                with wave.open(path) as file:
                    await self.speak(file.readframes(file.getnframes()))
            case ["silence", seconds]:
                await self.speak(bytes(int(32_000 * seconds)))
            case ["stop"]:
                await self.client.websocket.send('{"type":"listen","state":"stop"}')
            case ["text", str(text)]:
                await self.client.send_text(text)
            case ["abort"]:
                await self.client.send_abort()
            case ["heard", int(packets)]:
                await self.until(lambda: len(self.client.output_audio_queue) >= packets)
            case ["wait", str(state), int(count)]:
                await self.until(
                    lambda: sum(each.get("state") == state for each in self.messages) >= count
                )
            case _:
                raise SystemExit(f"no such step: {step}")

    async def until(self, happened: Any) -> None:
        async with asyncio.timeout(120):
            while not happened():  # noqa: ASYNC110 - the client has no event for it
                await asyncio.sleep(0.01)

    async def speak(self, pcm: bytes) -> None:
        """Send audio in real time, as a microphone gives it."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number, start in enumerate(range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)):
            await self.client.send_audio(pcm[start : start + FRAME_BYTES])
            await asyncio.sleep(max(0, began_s + 0.06 * (number + 1) - loop.time()))


def main() -> None:
    url, mode, steps = sys.argv[1:]
    stock = Stock(url, mode)
    asyncio.run(stock.run(json.loads(steps)))
    played = len(stock.client.output_audio_queue)
    print(json.dumps({"messages": stock.messages, "asked": stock.asked, "played": played}))


if __name__ == "__main__":
    main()
