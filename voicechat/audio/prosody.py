"""Changes the speech rate and the pitch of synthesised speech, for synthesisers that
cannot.

The rate is changed by FFmpeg's ``atempo`` (overlap-add time stretching). The pitch is
changed by resampling, which also changes the length, and ``atempo`` to restore the
length. This shifts the formants too, so that the speaker sounds smaller or larger.
"""

import av

from voicechat.audio.resample import pulled_samples

_LOWEST_TEMPO, _HIGHEST_TEMPO = 0.5, 2.0
"""The range of one ``atempo``. Above 2 it would skip samples: chain several."""

_FLUSH_MS = 300


class ProsodyFilter:
    """Changes the prosody of one stretch of s16le mono speech.

    Measured: 0.5 to 2.5 ms of CPU per second of audio. The delay is 50 ms at twice the
    speed, 180 ms at half, and up to 340 ms if the pitch is doubled as well. Use it in a
    thread; it releases the interpreter lock.
    """

    def __init__(self, rate_hz: int, speech_rate: float, pitch_rate: float) -> None:
        """Both rates are 0.5 to 2. ``rate_hz`` is that of input and output."""
        self._rate_hz = rate_hz
        graph = av.filter.Graph()
        steps = [
            graph.add(
                "abuffer",
                sample_rate=str(rate_hz),
                sample_fmt="s16",
                channel_layout="mono",
                time_base=f"1/{rate_hz}",
            )
        ]
        if pitch_rate != 1:
            steps.append(graph.add("asetrate", str(round(rate_hz * pitch_rate))))
            steps.append(graph.add("aresample", str(rate_hz)))
        steps.extend(
            graph.add("atempo", f"{tempo:.6f}") for tempo in _tempos(speech_rate / pitch_rate)
        )
        steps.append(
            graph.add(
                "aformat", sample_fmts="s16", channel_layouts="mono", sample_rates=str(rate_hz)
            )
        )
        steps.append(graph.add("abuffersink"))
        graph.link_nodes(*steps).configure()
        self._graph = graph
        self._speech_rate = speech_rate
        self._due_bytes = 0.0
        self._given_bytes = 0

    def push_audio(self, pcm: bytes) -> bytes:
        """Process the next piece, of an even size. May return nothing yet."""
        self._due_bytes += len(pcm) / self._speech_rate
        return self._filtered(pcm)

    def finish_stream(self) -> bytes:
        """Return the samples still buffered. The filter must not be used afterwards."""
        given_bytes = self._given_bytes
        # atempo drops an incomplete last window: pad with silence that may be dropped.
        rest = self._filtered(bytes(self._rate_hz * _FLUSH_MS // 1000 * 2))
        self._graph.push(None)
        rest += pulled_samples(self._graph)
        return rest[: max(0, round(self._due_bytes / 2) * 2 - given_bytes)]

    def _filtered(self, pcm: bytes) -> bytes:
        if not pcm:
            return b""
        frame = av.AudioFrame("s16", "mono", len(pcm) // 2)
        frame.sample_rate = self._rate_hz
        frame.planes[0].update(pcm)
        self._graph.push(frame)
        changed = pulled_samples(self._graph)
        self._given_bytes += len(changed)
        return changed


def _tempos(tempo: float) -> list[float]:
    """Split a tempo into factors within the range of ``atempo``."""
    tempos: list[float] = []
    while tempo > _HIGHEST_TEMPO:
        tempos.append(_HIGHEST_TEMPO)
        tempo /= _HIGHEST_TEMPO
    while tempo < _LOWEST_TEMPO:
        tempos.append(_LOWEST_TEMPO)
        tempo /= _LOWEST_TEMPO
    return [*tempos, tempo] if tempo != 1 else tempos
