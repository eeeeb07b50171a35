"""Measures the gain of batching and its cost for the event loop: ``python -m
tools.sherpa_figures``.

The model is `make_zipformer_ctc` with two matrices of random numbers in it, which make
it as much work as a small model; what a real one gains depends on its own layers.
"""

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx

from tests.providers.sherpa_models import RATE_HZ, make_zipformer_ctc, melody
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.sherpa_onnx import open_recognizer
from voicechat.providers.sherpa_streaming import SherpaStreamingRecognizer

WEIGHT_COLUMNS = 8192
"""1280 x 8192 numbers: 10.5 million weights, 42 MB."""
ROUNDS = 5
SPEECH_S = 8


def gain(folder: Path, streams: int) -> tuple[float, float]:
    """Milliseconds for a step of every stream, one by one and together; medians of
    rounds that take turns.
    """
    (model,) = folder.glob("*.onnx")
    recognizer: Any = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        tokens=str(folder / "tokens.txt"), model=str(model), num_threads=1
    )
    samples = (np.frombuffer(melody((0, 1, 2, 3) * 16), "<i2") / 32768).astype(np.float32).tolist()
    natives = [recognizer.create_stream() for _ in range(streams)]
    for native in natives:
        native.accept_waveform(RATE_HZ, samples)

    def timed(batches: Sequence[Sequence[Any]]) -> float:
        began_s = time.perf_counter()
        for batch in batches:
            recognizer.decode_streams(list(batch))
        return (time.perf_counter() - began_s) * 1000

    alone_ms, together_ms = [], []
    timed([[native] for native in natives])  # warming up
    for _ in range(ROUNDS):
        alone_ms.append(timed([[native] for native in natives]))
        together_ms.append(timed([natives]))
    return statistics.median(alone_ms), statistics.median(together_ms)


async def live(recognizer: SherpaStreamingRecognizer, streams: int) -> tuple[list[float], float]:
    """Recognise streams that speak in real time; gives how late the loop's timers were
    (ms), and jobs per batch.
    """
    late_ms: list[float] = []
    pcm = melody((None, 0, 1, 2) * (SPEECH_S * 1000 // 1280))

    async def audio(delay_s: float) -> AsyncIterator[bytes]:
        await asyncio.sleep(delay_s)
        for start in range(0, len(pcm), 3200):
            yield pcm[start : start + 3200]
            await asyncio.sleep(0.1)

    async def read(delay_s: float) -> None:
        async for _ in recognizer.recognize(audio(delay_s), RecognitionOptions()):
            pass

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late_ms.append((loop.time() - due_s) * 1000)

    batches, decoded = recognizer.batching.batches, recognizer.batching.decoded
    watching = asyncio.get_running_loop().create_task(watch())
    await asyncio.gather(*(read(0.1 * index / max(streams, 1)) for index in range(streams)))
    if not streams:
        await asyncio.sleep(SPEECH_S)
    watching.cancel()
    batches, decoded = recognizer.batching.batches - batches, recognizer.batching.decoded - decoded
    return late_ms, decoded / max(batches, 1)


@contextmanager
def burning() -> Iterator[None]:
    """A thread that keeps a core busy with the interpreter lock released: what
    competition for cores alone does.
    """
    over = threading.Event()
    matrix = np.ones((512, 512), np.float32)

    def burn() -> None:
        while not over.is_set():
            _ = matrix @ matrix

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_zipformer_ctc(Path(scratch) / "model", WEIGHT_COLUMNS)
        for streams in (1, 4, 16, 50):
            alone_ms, together_ms = gain(folder, streams)
            print(
                f"{streams:3} streams, 160 ms each: one by one {alone_ms:6.1f} ms, together "
                f"{together_ms:6.1f} ms, "
                f"{alone_ms / together_ms:.1f} times as fast"
            )
        recognizer = open_recognizer(model=str(folder), trial=False)
        assert isinstance(recognizer, SherpaStreamingRecognizer)
        await recognizer.start()
        for streams, beside in (
            (0, nullcontext()),
            (0, burning()),
            (10, nullcontext()),
            (50, nullcontext()),
        ):
            with beside:
                late_ms, per_batch = await live(recognizer, streams)
            p50, p99 = np.percentile(late_ms, (50, 99))
            load = "" if isinstance(beside, nullcontext) else ", a thread that burns a core"
            print(
                f"{streams:3} live streams{load}: "
                f"the loop's timers are late by {p50:.2f} ms (p50), {p99:.2f} ms (p99), "
                f"{max(late_ms):.1f} ms (most); "
                f"{per_batch:.1f} streams in a batch"
            )
        await recognizer.aclose()


if __name__ == "__main__":
    asyncio.run(main())
