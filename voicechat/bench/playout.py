"""Detects underruns: compares the arrival of a reply's audio with a player that starts
at the first piece.
"""

from voicechat.audio.formats import Container, parse_output_format


class Playout:
    """A simulated player of one reply without a jitter buffer."""

    def __init__(self, output: str) -> None:
        """``output`` names the format. ``late_ms`` stays 0 for variable bit rates."""
        wanted = parse_output_format(output)
        self._bytes_per_s = 0.0
        if wanted.container in (Container.PCM, Container.WAV):
            self._bytes_per_s = wanted.rate_hz * 2
        elif wanted.container is Container.MP3 and wanted.bitrate_bps is not None:
            self._bytes_per_s = wanted.bitrate_bps / 8
        self._runs_out_s = 0.0
        self.first_s: float | None = None
        """Arrival time of the first piece, on the clock of ``add_audio``; None before
        it.
        """
        self.late_ms = 0.0
        """The longest underrun so far."""

    def add_audio(self, payload: bytes, now_s: float) -> None:
        """Record that the next piece arrived at ``now_s``."""
        if self.first_s is None:
            self.first_s = self._runs_out_s = now_s
        if not self._bytes_per_s:
            return
        self.late_ms = max(self.late_ms, (now_s - self._runs_out_s) * 1000)
        self._runs_out_s = max(self._runs_out_s, now_s) + len(payload) / self._bytes_per_s
