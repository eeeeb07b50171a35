import pytest

from voicechat.audio.formats import (
    Container,
    InputContainer,
    InputFormat,
    parse_input_format,
    parse_output_format,
)
from voicechat.errors import RemoteProtocolError, Status


@pytest.mark.parametrize(
    ("name", "container", "rate_hz", "bitrate_bps", "content_type"),
    [
        ("WAV_16000HZ_MONO_16BIT", Container.WAV, 16000, None, "audio/wav"),
        ("PCM_22050HZ_MONO_16BIT", Container.PCM, 22050, None, "audio/pcm"),
        ("PCM_48KHZ_MONO_16BIT", Container.PCM, 48000, None, "audio/pcm"),
        ("MP3_16000HZ_MONO_128KBPS", Container.MP3, 16000, 128_000, "audio/mpeg"),
        ("MP3_44100HZ_MONO_320KBPS", Container.MP3, 44100, 320_000, "audio/mpeg"),
    ],
)
def test_an_output_name_says_container_rate_and_bit_rate(
    name: str, container: Container, rate_hz: int, bitrate_bps: int | None, content_type: str
) -> None:
    parsed = parse_output_format(name)
    assert (
        parsed.name,
        parsed.container,
        parsed.rate_hz,
        parsed.bitrate_bps,
        parsed.content_type,
    ) == (*(name, container, rate_hz, bitrate_bps, content_type),)


@pytest.mark.parametrize(
    ("rate_hz", "wished_kbps", "given_kbps"),
    [
        (22050, 256, 128),  # above MPEG-2's limit: 128, as the vendor's own sample bytes
        (24000, 161, 128),
        (24000, 160, 160),
        (16000, 100, 96),
        (16000, 1, 8),
        (8000, 128, 64),  # MPEG-2.5 as LAME has it ends at 64
        (8000, 20, 16),  # of two equally near the lower
        (48000, 8, 32),
        (48000, 144, 128),
        (44100, 999, 320),
    ],
)
def test_a_bit_rate_that_layer_iii_lacks_becomes_one_it_has(
    rate_hz: int, wished_kbps: int, given_kbps: int
) -> None:
    assert (
        parse_output_format(f"MP3_{rate_hz}HZ_MONO_{wished_kbps}KBPS").bitrate_bps
        == given_kbps * 1000
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mp3",
        "mp3_16000hz_mono_128kbps",
        "MP3_16000HZ_STEREO_128KBPS",
        "MP3_32000HZ_MONO_128KBPS",
        "MP3_16000HZ_MONO_16BIT",
        "MP3_16000HZ_MONO_0KBPS",
        "WAV_16000HZ_MONO_24BIT",
        "WAV_16000HZ_MONO_128KBPS",
        "WAV_11025HZ_MONO_16BIT",
        "FLAC_16000HZ_MONO_16BIT",
        "OGG_OPUS_44100HZ_MONO_32KBPS",
        "OGG_OPUS_16KHZ_MONO_16BIT",
        "WAV_16000HZ_MONO_16BIT\n",
        "WAV_１６０００HZ_MONO_16BIT",
        "X" * 100_000,
    ],
)
def test_an_output_name_outside_the_grammar_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse_output_format(name)
    assert refused.value.status is Status.INVALID_PARAMETER
    assert repr(name)[:20] in refused.value.message
    assert "MP3_<rate>HZ_MONO_<n>KBPS" in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(("wished_kbps", "given_kbps"), [(1, 6), (32, 32), (999, 256)])
def test_an_opus_bit_rate_is_moved_into_the_codecs_range(wished_kbps: int, given_kbps: int) -> None:
    parsed = parse_output_format(f"OGG_OPUS_16KHZ_MONO_{wished_kbps}KBPS")
    assert (parsed.container, parsed.rate_hz, parsed.bitrate_bps) == (
        Container.OGG_OPUS,
        16000,
        given_kbps * 1000,
    )
    assert parsed.content_type == "audio/ogg; codecs=opus"


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 192000])
def test_samples_are_accepted_at_any_rate_of_the_contract(rate_hz: int) -> None:
    assert parse_input_format("pcm", rate_hz) == InputFormat(InputContainer.PCM, rate_hz)
    assert parse_input_format("wav", rate_hz) == InputFormat(InputContainer.WAV, rate_hz)


def test_an_empty_input_name_is_the_default() -> None:
    assert parse_input_format("", 16000) == InputFormat(InputContainer.WAV, 16000)


@pytest.mark.parametrize("container", list(InputContainer))
def test_every_input_format_goes_by_its_name(container: InputContainer) -> None:
    assert parse_input_format(container.value, 8000) == InputFormat(container, 8000)


def test_only_samples_are_not_compressed() -> None:
    samples = {container.value for container in InputContainer if not container.compressed}
    assert samples == {"pcm", "wav", "mulaw", "alaw"}


@pytest.mark.parametrize(
    ("name", "rate_hz", "named"), [("vinyl", 16000, "'vinyl'"), ("pcm", 7999, "7999")]
)
def test_an_unknown_input_is_refused_with_field_and_value(
    name: str, rate_hz: int, named: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=named) as refused:
        parse_input_format(name, rate_hz)
    assert refused.value.status is Status.INVALID_PARAMETER


def test_a_rate_above_the_contract_is_refused() -> None:
    with pytest.raises(
        RemoteProtocolError, match="sample_rate 192001 is not allowed; allowed: 8000 to 192000"
    ):
        parse_input_format("wav", 192001)
