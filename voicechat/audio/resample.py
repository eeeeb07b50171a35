"""Streaming resampling of s16le mono audio with libswresample.

Measured with 20 ms pieces: 0.6 to 0.8 ms of CPU per second of audio, most of it call
overhead. Delay: 1 to 2 ms when the lower rate is 16 kHz or more, up to 4 ms at 8 kHz.
Opening takes 0.2 to 0.9 ms at the usual rates, and 13 ms at the worst (191999 Hz to 16
kHz: 1024 phases of a long filter).
"""

import math
from typing import cast

import av

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ

# Taps at the lower of the two rates, and the filter's edge as a fraction of that rate's
# Nyquist frequency. When the rate falls, libswresample's own choice (32, 0.97) lets
# frequencies 5 % above the new Nyquist frequency fold back at -22 dB; this one
# attenuates them to -84 dB, and is flat within 0.3 dB up to 0.9 of the Nyquist
# frequency. When the rate rises, nothing folds: the library's choice is flat within 0.4
# dB up to 0.9 and has half the delay.
_DOWN_TAPS, _DOWN_CUTOFF = 64, 0.95
_UP_TAPS, _UP_CUTOFF = 32, 0.97


class Resampler:
    """Resamples one stream from ``in_rate_hz`` to ``out_rate_hz``. Equal rates pass
    through unchanged.

    The output does not depend on how the input is split; an odd byte is carried into
    the next piece. A stream shorter than the filter (a few milliseconds) may produce no
    output. Raises ``ValueError`` for a rate outside 8000 to 192000 Hz.
    """

    def __init__(self, in_rate_hz: int, out_rate_hz: int) -> None:
        for rate_hz in (in_rate_hz, out_rate_hz):
            if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
                raise ValueError(
                    f"sample rate {rate_hz} Hz is outside {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}"
                )
        self.in_rate_hz = in_rate_hz
        self.out_rate_hz = out_rate_hz
        self._odd_byte = b""
        self._graph = None if in_rate_hz == out_rate_hz else _open_graph(in_rate_hz, out_rate_hz)

    @property
    def delay_ms(self) -> int:
        """Upper bound of the buffered audio: half the length of the filter."""
        return 0 if self._graph is None else resampling_delay_ms(self.in_rate_hz, self.out_rate_hz)

    def push_audio(self, pcm: bytes) -> bytes:
        """Resample the next piece, of any size. May return nothing yet."""
        if self._odd_byte or len(pcm) % 2:
            pcm = self._odd_byte + pcm
            whole_bytes = len(pcm) & ~1
            self._odd_byte, pcm = pcm[whole_bytes:], pcm[:whole_bytes]
        if self._graph is None or not pcm:
            return pcm
        frame = av.AudioFrame("s16", "mono", len(pcm) // 2)
        frame.sample_rate = self.in_rate_hz
        frame.planes[0].update(pcm)
        self._graph.push(frame)
        return pulled_samples(self._graph)

    def finish_stream(self) -> bytes:
        """Return the samples still buffered. Do not use the resampler afterwards."""
        if self._graph is None:
            return b""
        self._graph.push(None)
        return pulled_samples(self._graph)


class RateConverter:
    """Resamples a stream whose rate may change between pieces. Opens a resampler when
    it is first needed.
    """

    def __init__(self, out_rate_hz: int, usual_hz: int | None = None) -> None:
        """``usual_hz`` is the expected rate. Its resampler is opened at once, in about
        1 ms.
        """
        self.out_rate_hz = out_rate_hz
        self._resampler = None if usual_hz is None else Resampler(usual_hz, out_rate_hz)

    @property
    def delay_ms(self) -> int:
        """Upper bound of the buffered audio at the last rate; see
        ``Resampler.delay_ms``.
        """
        return 0 if self._resampler is None else self._resampler.delay_ms

    def push_audio(self, pcm: bytes, in_rate_hz: int) -> bytes:
        """Resample the next piece. At a change of rate, the samples still buffered are
        returned first.
        """
        held_back = b""
        if self._resampler is None or self._resampler.in_rate_hz != in_rate_hz:
            successor = Resampler(in_rate_hz, self.out_rate_hz)
            held_back = self.finish_stream()
            self._resampler = successor
        converted = self._resampler.push_audio(pcm)
        return held_back + converted if held_back else converted

    def finish_stream(self) -> bytes:
        """Return the samples still buffered. The next piece begins a new stream."""
        resampler, self._resampler = self._resampler, None
        return b"" if resampler is None else resampler.finish_stream()


def resampling_delay_ms(in_rate_hz: int, out_rate_hz: int) -> int:
    """Return the delay of resampling between two different rates, rounded up to
    milliseconds.
    """
    taps, cutoff = _filter(in_rate_hz, out_rate_hz)
    return math.ceil(1000 * taps / 2 / (min(in_rate_hz, out_rate_hz) * cutoff))


def _filter(in_rate_hz: int, out_rate_hz: int) -> tuple[int, float]:
    return (_DOWN_TAPS, _DOWN_CUTOFF) if in_rate_hz > out_rate_hz else (_UP_TAPS, _UP_CUTOFF)


def _open_graph(in_rate_hz: int, out_rate_hz: int) -> av.filter.Graph:
    taps, cutoff = _filter(in_rate_hz, out_rate_hz)
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add(
            "abuffer",
            sample_rate=str(in_rate_hz),
            sample_fmt="s16",
            channel_layout="mono",
            time_base=f"1/{in_rate_hz}",
        ),
        graph.add("aresample", osr=str(out_rate_hz), filter_size=str(taps), cutoff=str(cutoff)),
        graph.add(
            "aformat", sample_fmts="s16", channel_layouts="mono", sample_rates=str(out_rate_hz)
        ),
        graph.add("abuffersink"),
    ).configure()
    return graph


def pulled_samples(graph: av.filter.Graph) -> bytes:
    """Return all s16 mono samples that are ready in a filter graph."""
    pieces: list[bytes] = []
    while True:  # terminates: each pull removes a frame from the graph
        try:
            frame = cast(av.AudioFrame, graph.pull())
        except (BlockingIOError, EOFError):  # needs more input; is exhausted
            return b"".join(pieces)
        pieces.append(bytes(frame.planes[0])[: frame.samples * 2])
