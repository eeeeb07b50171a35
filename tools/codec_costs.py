"""Measures the CPU cost of each format, as a table for ``docs/audio-formats.md``:
``python -m tools.codec_costs``.

CPU is process time for a second of audio, everything from bytes to s16le mono 16 kHz
(or back) included, in frames of about 100 ms. A codec's frame must be there as a whole
before any of it can be heard; what is held back beyond that, by the framing, the
decoder and the resampler, is measured byte by byte.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from tests.formats.material import NAMES, RATE_HZ, container_of, encoded, speech
from voicechat.audio.compressed import CompressedDecoder, open_demuxer
from voicechat.audio.decode import Decoder, open_decoder
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import InputContainer, InputFormat, parse_output_format

OUTPUTS = (
    "PCM_16000HZ_MONO_16BIT",
    "WAV_16000HZ_MONO_16BIT",
    "WAV_48000HZ_MONO_16BIT",
    "MP3_16000HZ_MONO_64KBPS",
    "MP3_22050HZ_MONO_256KBPS",
    "OGG_OPUS_16KHZ_MONO_32KBPS",
    "OGG_OPUS_48KHZ_MONO_64KBPS",
)
SYNTHESISER_RATE_HZ = 22050
SPEECH_S = len(speech()) / 2 / RATE_HZ


def cpu_ms_per_s(work: Callable[[], int], repeats: int) -> float:
    """Process time for a second of audio, the least of some repetitions."""

    def once() -> float:
        began_s = time.process_time()
        work()
        return time.process_time() - began_s

    return min(once() for _ in range(repeats)) * 1000 / SPEECH_S


def decode_all(name: str) -> int:
    """Decode the speech in frames of about 100 ms; give the number of bytes that came
    out.
    """
    stream, decoder = encoded(name), CompressedDecoder(container_of(name))
    size = max(1, int(len(stream) / SPEECH_S / 10))
    out = sum(
        len(pcm)
        for at in range(0, len(stream), size)
        for pcm in decoder.decode(stream[at : at + size])
    )
    return out + sum(len(pcm) for pcm in decoder.finish_turn())


def frames_of(name: str) -> tuple[float, list[int]]:
    """The length of a frame in ms, and for each frame the number of bytes with which it
    is complete.
    """
    stream, demuxer = encoded(name), open_demuxer(container_of(name))
    if name.startswith(("opus", "speex", "webm")):
        # Complete with its page or block: there is nothing to be had before.
        ends = [
            at + 1
            for at in range(len(stream))
            for item in demuxer.push_bytes(stream[at : at + 1])
            if isinstance(item, bytes)
        ]
    else:
        sizes = [
            len(item)
            for item in [*demuxer.push_bytes(stream), *demuxer.finish_stream()]
            if isinstance(item, bytes)
        ]
        ends = [len(stream) - sum(sizes) + end for end in accumulate(sizes)]
    return decode_all(name) / 32 / len(ends), ends


def held_back_ms(name: str) -> tuple[float, float]:
    """The length of a frame, and the most audio that was there in whole frames and had
    not come out.
    """
    frame_ms, ends = frames_of(name)
    stream, decoder = encoded(name), CompressedDecoder(container_of(name))
    complete, out_bytes, most_ms = 0, 0, 0.0
    for at in range(len(stream)):
        out_bytes += sum(map(len, decoder.decode(stream[at : at + 1])))
        while complete < len(ends) and ends[complete] <= at + 1:
            complete += 1
        most_ms = max(most_ms, complete * frame_ms - out_bytes / 32)
    return frame_ms, most_ms


def sample_rows(repeats: int) -> Iterator[str]:
    """Rows for the formats that are decoded in place."""
    for container, rate_hz in (
        (InputContainer.PCM, 16000),
        (InputContainer.PCM, 8000),
        (InputContainer.PCM, 48000),
        (InputContainer.MU_LAW, 8000),
    ):
        data = bytes(int(rate_hz * SPEECH_S) * (1 if container is InputContainer.MU_LAW else 2))

        def work(data: bytes = data, wanted: InputFormat = InputFormat(container, rate_hz)) -> int:  # noqa: B008
            return len(_in_frames(open_decoder(wanted), data))

        held_ms = (
            SPEECH_S * 1000 - len(open_decoder(InputFormat(container, rate_hz)).decode(data)) / 32
        )
        yield _row(
            f"`{container.value}` {rate_hz // 1000} kHz",
            cpu_ms_per_s(work, repeats),
            "-",
            f"{held_ms:.0f}",
        )


def _in_frames(decoder: Decoder, data: bytes) -> bytes:
    size = int(len(data) / SPEECH_S / 10) & ~1
    return b"".join(decoder.decode(data[at : at + size]) for at in range(0, len(data), size))


def input_rows(repeats: int) -> Iterator[str]:
    """Rows for compressed input."""
    for name in NAMES:
        frame_ms, held_ms = held_back_ms(name)
        cpu = cpu_ms_per_s(lambda name=name: decode_all(name), repeats)  # type: ignore[misc]
        frame = "-" if name == "g722" else f"{frame_ms:.0f}"
        yield _row(f"`{name}`", cpu, frame, "3" if name == "g722" else f"{held_ms:.0f}")


def output_rows(repeats: int) -> Iterator[str]:
    """Rows for the outputs."""
    size = SYNTHESISER_RATE_HZ // 10 * 2
    pcm = bytes(int(SYNTHESISER_RATE_HZ * SPEECH_S) * 2)

    for name in OUTPUTS:

        def encode_all(name: str = name) -> int:
            encoder = open_encoder(parse_output_format(name))
            out = sum(
                len(packet)
                for at in range(0, len(pcm), size)
                for packet in encoder.encode(pcm[at : at + size], SYNTHESISER_RATE_HZ)
            )
            return out + sum(map(len, encoder.finish_stream()))

        held_ms = open_encoder(parse_output_format(name)).held_back_ms
        yield _row(f"`{name}`", cpu_ms_per_s(encode_all, repeats), None, str(held_ms))


def _row(name: str, cpu: float, *columns: str | None) -> str:
    return (
        " | ".join(
            ["|" + f" {name}", f"{cpu:.1f}", *[column for column in columns if column is not None]]
        )
        + " |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="measure what each audio format costs")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(
        "| input | CPU, ms per second of audio | frame, ms | held back beyond it, ms "
        "|\n|---|---|---|---|"
    )
    print("\n".join([*sample_rows(repeats), *input_rows(repeats)]))
    print("\n| output | CPU, ms per second of audio | held back at most, ms |\n|---|---|---|")
    print("\n".join(output_rows(repeats)))


if __name__ == "__main__":
    main()
