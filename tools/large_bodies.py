"""How long a large request holds up the server: ``python -m tools.large_bodies``.

A server in this process gets pictures of 30 MB, in base64 in JSON (40 MB), as a form
and as a file, from a client in a process of its own. Meanwhile a task measures the
event loop: the time from one of its turns to the next, and the CPU time that the
process used in it. What other programs of a busy machine take is in the first and not
in the second, so the lesser of the two is printed.
"""

import argparse
import asyncio
import base64
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.compat.stage import ScriptedReader
from tests.compat.vendors import PICTURE
from tests.rest.live import KEY, PROJECT, serving_live
from voicechat.pictures.picture import Picture
from voicechat.providers.media import ImageGenerator, ImageRequest, RemoteJob
from voicechat.runtime.media_services import MediaServices, ServicesOfKind

LIMIT_MS = 5.0
CONFIG = "[admission]\nunquestioned_sessions = 1000000\n"
CLIENT = """
import sys, urllib.error, urllib.request
url, content_type, path = sys.argv[1:]
headers = {"Content-Type": content_type, "Authorization": "Bearer KEY"}
request = urllib.request.Request(url, open(path, "rb").read(), headers)
try:
    with urllib.request.urlopen(request, timeout=300) as response:
        print(response.status)
except urllib.error.HTTPError as error:
    print(error.code, error.read()[:300])
""".replace("KEY", KEY)


class InstantGenerator(ImageGenerator):
    """Answers at once, so that only the server's own work is measured."""

    @property
    def edits(self) -> bool:
        return True

    async def make_images(
        self, request: ImageRequest, job: RemoteJob | None = None
    ) -> tuple[Picture, ...]:
        return (Picture(PICTURE, "image/png", 64, 48),)


def services() -> MediaServices:
    return MediaServices(
        images=ServicesOfKind("images", {"default": InstantGenerator()}),
        ocr=ServicesOfKind("ocr", {"default": ScriptedReader()}),
    )


@dataclass
class LoopTurns:
    """The turns of the event loop, in milliseconds: the longest last."""

    held_ms: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[None]:
        """Measure while the context lasts."""
        task = asyncio.get_running_loop().create_task(self._measure())
        try:
            yield
        finally:
            task.cancel()
            self.held_ms.sort()

    async def _measure(self) -> None:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.0005)
            wall_now_s, cpu_now_s = time.perf_counter(), time.process_time()
            self.held_ms.append(min(wall_now_s - wall_s, cpu_now_s - cpu_s) * 1000)
            wall_s, cpu_s = wall_now_s, cpu_now_s


def large_picture() -> bytes:
    """A picture of 29 MB that a server accepts."""
    noise = np.random.default_rng(1).integers(0, 255, (3_000, 3_200, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "BMP")
    return out.getvalue()


async def run(repeats: int) -> int:
    """Print the longest holds of each request; return how many were above the limit."""
    picture = large_picture()
    encoded = base64.b64encode(picture).decode()
    boundary = "b0undary"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="p.bmp"\r\n'
        "Content-Type: image/bmp\r\n\r\n"
    ).encode()
    ocr = {"easyllm_id": "default", "model": "m", "type": "image_url"}
    json_type = "application/json"
    requests = {
        "edits, JSON": (
            "/v1/images/edits",
            json_type,
            json.dumps({"prompt": "x", "image": encoded}).encode(),
        ),
        "edits, JSON, slashes escaped": (
            "/v1/images/edits",
            json_type,
            json.dumps({"prompt": "x", "image": encoded}).replace("/", "\\/").encode(),
        ),
        "SophNet OCR, JSON, data URL": (
            f"{PROJECT}/easyllms/image-ocr",
            json_type,
            json.dumps(ocr | {"image_url": {"url": f"data:image/bmp;base64,{encoded}"}}).encode(),
        ),
        "edits, form": (
            "/v1/images/edits",
            f"multipart/form-data; boundary={boundary}",
            form + picture + f"\r\n--{boundary}--\r\n".encode(),
        ),
        "Spark, file": ("/PictureToTextModel/chat", "application/octet-stream", picture),
        "48 MB of one text that is no picture": (
            "/v1/images/edits",
            json_type,
            json.dumps({"prompt": "x", "image": "!" * (47 << 20)}).encode(),
        ),
        "48 MB of short texts": (
            "/v1/images/edits",
            json_type,
            b'{"prompt": "x", "image": [' + b'"ab",' * (9 << 20) + b'"c"]}',
        ),
        "48 MB of escapes": (
            "/v1/images/edits",
            json_type,
            b'{"prompt": "x", "image": "' + b"\\n" * (23 << 20) + b'"}',
        ),
    }
    late = 0
    with tempfile.TemporaryDirectory(prefix="large-bodies-") as name:
        folder = Path(name)
        (folder / "client.py").write_text(CLIENT)
        async with serving_live(folder, config=CONFIG, media=services()) as live:
            for what, (path, content_type, body) in requests.items():
                (folder / "body").write_bytes(body)
                turns = LoopTurns()
                answer = ""
                for _ in range(repeats):
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, str(folder / "client.py"), live.url + path),
                        *(content_type, str(folder / "body")),
                        stdout=asyncio.subprocess.PIPE,
                    )
                    async with turns.measuring():
                        answer = (await process.communicate())[0].decode().strip()
                longest = turns.held_ms[-1]
                late += longest > LIMIT_MS
                some = ", ".join(f"{held_ms:.1f}" for held_ms in turns.held_ms[-4:])
                print(f"{what} ({len(body) >> 20} MB): {some} ms; answer {answer[:90]}", flush=True)
    return late


def main() -> None:
    """Run; the exit status is 1 if the loop was held for more than ``LIMIT_MS``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    sys.exit(asyncio.run(run(parser.parse_args().repeats)) > 0)


if __name__ == "__main__":
    main()
