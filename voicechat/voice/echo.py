"""How much of what the microphone hears is the reply itself, heard again through the loudspeaker.

The server knows the reply's samples and roughly when they are played; the microphone has them 50 to 400 ms later,
softer and coloured by the room. Two steps, both on 8 kHz:

- *Delay*: the peak of the cross-correlation (with phase transform, Knapp and Carter, "The generalized correlation
  method for estimation of time delay", IEEE Trans. ASSP 24:4, 1976) of the last half second of the microphone with
  what was played before it; recomputed some times a second.
- *Share*: with the reply moved by that delay, the magnitude-squared coherence of both in each frequency, averaged over
  about 200 ms; the coherent part of the microphone's power is echo ("coherent output power", Bendat and Piersol,
  "Engineering Applications of Correlation and Spectral Analysis", 1980).

A user who talks over the echo is louder than it (echo arrives 10 to 25 dB below the reply) and coherent with nothing,
so the share falls with their first frame.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

Floats: TypeAlias = NDArray[np.float32]

_KHZ = 8
_FRAME = FRAME_MS * _KHZ
_WINDOW = 2 * _FRAME
_HEARD = 16 * _FRAME
"""Microphone samples that the delay is found from: 512 ms."""
MAX_DELAY_MS = 480
"""From the estimated time of play to the microphone: network, player's buffer, loudspeaker, air."""
_LAGS = MAX_DELAY_MS * _KHZ
_PLAYED = 8_192 * _KHZ
"""Reply samples that are kept, 8 s: what may wait ahead of playback and what the search looks back on."""
_JITTER = 40 * _KHZ
"""A gap in the estimated times that is shorter is an error of the estimate: players play without gaps."""
_BINS = slice(8, 240)
"""125 Hz to 3750 Hz in steps of 15.6 Hz: where speech has its power and small loudspeakers have theirs."""
_MEMORY = np.float32(0.75)
_AVERAGED = 7
"""Weight of the past in the spectra, and how many frames that averages: unrelated sounds then seem coherent to 1/7."""
_SEARCH_FRAMES = 6
_CHECK_FRAMES = 62
"""Frames of sound between two searches for the delay: while none is known (192 ms), and afterwards (2 s)."""
_SEARCH_BINS = slice(128, 3_584)
"""125 Hz to 3500 Hz in the search's spectra: beyond, whitening would raise what is only noise."""
_SEARCH_MEMORY = np.float32(0.7)
"""Weight of the searches before in the correlation: chance peaks wander, the echo's stays."""
_WHITENING = np.float32(0.8)
"""1 is the phase transform, 0 plain correlation; between them, faint frequencies count less than loud ones."""
_CLEAR_PEAK = 7.0
"""A delay is believed when its correlation stands out so many standard deviations."""
_FAINT = 1e-7
"""Mean power (full scale is 1) of a frame that holds nothing: -70 dB."""


class EchoDetector:
    """One session's echo: the reply's audio in, the microphone's frames in, the share of echo out.

    Costs nothing while nothing was played. Remembers 8 s of the reply (256 KB) and half a second of the microphone.
    Times are milliseconds of the session; what is played and what is heard must share the line to within ± 200 ms.
    """

    def __init__(self) -> None:
        self._played: Floats = np.zeros(_PLAYED, np.float32)
        self._played_to = 0
        """Where the reply's samples end, in samples of the session."""
        self._heard: Floats = np.zeros(_HEARD, np.float32)
        self._delay: int | None = None
        self._to_search = _SEARCH_FRAMES
        self._lags: Floats = np.zeros(_LAGS + 1, np.float32)
        self._window: Floats = np.hanning(_WINDOW).astype(np.float32)
        self._clear_spectra()

    def played(self, pcm: bytes, at_ms: int) -> None:
        """``pcm`` (s16le mono 16 kHz) is estimated to leave the loudspeaker from ``at_ms`` on.

        Calls come in the order of play. What overlaps the call before is played after it; a gap of more than 40 ms is
        silence. A half sample at the end, and an odd one, are dropped.
        """
        samples = _halve(pcm)[-_PLAYED:]
        begin = at_ms * _KHZ
        if begin < self._played_to + _JITTER:
            begin = self._played_to
        silence = min(begin - self._played_to, _PLAYED)
        self._put(begin - silence, np.zeros(silence, np.float32))
        self._put(begin, samples)
        self._played_to = begin + len(samples)

    def stopped(self, at_ms: int) -> None:
        """The reply was cut off: nothing of it is played after ``at_ms``."""
        self._played_to = min(self._played_to, max(0, at_ms * _KHZ))

    @property
    def delay_ms(self) -> float | None:
        """From the estimated time of play to the microphone; None as long as it is not known."""
        return None if self._delay is None else self._delay / _KHZ

    def heard(self, frame: bytes, end_ms: int) -> float:
        """Take the next 32 ms of the microphone, which end at ``end_ms``; return the share of echo in it, 0 to 1.

        0 as long as the delay is not known, and for silence.
        """
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame is {FRAME_BYTES} bytes, not {len(frame)}")
        end = end_ms * _KHZ
        if self._played_to + _LAGS + _HEARD < end:
            return 0.0
        samples = _halve(frame)
        self._heard[:-_FRAME] = self._heard[_FRAME:]
        self._heard[-_FRAME:] = samples
        if float(samples @ samples) < _FAINT * _FRAME:
            # Silence passes too: what was heard before it must not outweigh the first frames after it.
            self._powers *= _MEMORY
            self._cross *= _MEMORY
            return 0.0
        self._to_search -= 1
        if self._to_search <= 0:
            known = self._delay
            self._find_delay(end)
            self._to_search = _CHECK_FRAMES if known is not None and known == self._delay else _SEARCH_FRAMES
        return 0.0 if self._delay is None else self._coherent_share(end - self._delay)

    def _put(self, begin: int, samples: Floats) -> None:
        at = begin % _PLAYED
        first = min(len(samples), _PLAYED - at)
        self._played[at : at + first] = samples[:first]
        self._played[: len(samples) - first] = samples[first:]

    def _get(self, end: int, length: int) -> Floats:
        """The reply's samples up to ``end``; silence where nothing was played."""
        beyond = min(max(0, end - self._played_to), length)
        at = (end - length) % _PLAYED
        known = length - beyond
        if beyond == 0 and at + length <= _PLAYED:
            return self._played[at : at + length]
        first = min(known, _PLAYED - at)
        parts = (self._played[at : at + first], self._played[: known - first], np.zeros(beyond, np.float32))
        return np.concatenate(parts)

    def _find_delay(self, end: int) -> None:
        """Correlate the microphone with the reply; a delay that does not stand out leaves the last one in force."""
        reply = self._get(end, _HEARD + _LAGS)
        size = 8_192
        cross = np.conj(np.fft.rfft(reply, size)) * np.fft.rfft(self._heard, size)
        cross[: _SEARCH_BINS.start] = 0
        cross[_SEARCH_BINS.stop :] = 0
        cross /= np.abs(cross) ** _WHITENING + np.float32(1e-9)
        correlation = np.fft.irfft(cross, size)
        # The microphone begins _LAGS samples after the reply does: a delay of d stands at d - _LAGS, which wraps.
        lags = np.concatenate((correlation[-_LAGS:], correlation[:1]))
        self._lags *= _SEARCH_MEMORY
        self._lags += lags / (np.std(lags) + np.float32(1e-9))
        best = int(np.argmax(self._lags))
        if self._lags[best] < _CLEAR_PEAK * float(np.std(self._lags)):
            return
        if self._delay is None or abs(best - self._delay) > _KHZ:
            self._clear_spectra()
            self._delay = best

    def _coherent_share(self, reply_end: int) -> float:
        both = np.stack((self._heard[-_WINDOW:], self._get(reply_end, _WINDOW)))
        spectra = np.fft.rfft(both * self._window)[:, _BINS]
        self._powers *= _MEMORY
        self._powers += spectra.real**2 + spectra.imag**2
        self._cross *= _MEMORY
        self._cross += spectra[0] * spectra[1].conj()
        heard_power, reply_power = self._powers
        coherent = (self._cross.real**2 + self._cross.imag**2) / (reply_power + np.float32(1e-9))
        share = float(coherent.sum()) / (float(heard_power.sum()) + 1e-9)
        self._frames += 1
        bias = 1 / min(self._frames, _AVERAGED)
        return 0.0 if bias == 1 else min(max((share - bias) / (1 - bias), 0.0), 1.0)

    def _clear_spectra(self) -> None:
        self._frames = 0
        bins = _BINS.stop - _BINS.start
        self._powers: Floats = np.zeros((2, bins), np.float32)
        """Of the microphone and of the reply."""
        self._cross: NDArray[np.complex64] = np.zeros(bins, np.complex64)


def _halve(pcm: bytes) -> Floats:
    """16 kHz s16le to 8 kHz floats. The mean of two samples is low-pass enough to compare speech with speech."""
    samples = np.frombuffer(pcm, "<i2", len(pcm) // 4 * 2).astype(np.float32) * np.float32(1 / 65536)
    return samples[0::2] + samples[1::2]
