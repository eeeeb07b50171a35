import io
import wave

import pytest

from voicechat.audio.wav import read_wav, wav_header
from voicechat.errors import RemoteProtocolError, Status

PCM = bytes(range(256)) * 10


def test_the_header_is_read_by_others() -> None:
    with wave.open(io.BytesIO(wav_header(22050, len(PCM)) + PCM)) as clip:
        assert clip.getparams()[:4] == (1, 2, 22050, len(PCM) // 2)
        assert clip.readframes(clip.getnframes()) == PCM


def test_an_unknown_size_is_all_ones_in_both_places() -> None:
    header = wav_header(16000, None)
    assert len(header) == 44
    assert header[4:8] == header[40:44] == b"\xff\xff\xff\xff"


def test_a_whole_file_is_read_to_16_khz() -> None:
    assert read_wav(wav_header(16000, len(PCM)) + PCM) == PCM
    assert len(read_wav(wav_header(8000, 1600) + bytes(1600))) == 3200


@pytest.mark.parametrize("data", [b"", b"RIFF", b"ID3\x04" * 10, b"RIFF\0\0\0\0AVI " * 3])
def test_what_is_no_wav_file_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not begin with RIFF") as refused:
        read_wav(data)
    assert refused.value.status is Status.UNDECODABLE_AUDIO
