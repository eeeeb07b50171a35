"""The local models keep the contract that is shipped for everybody's providers."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip(
    "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
)

from tests.providers.humming import silence
from tests.providers.sherpa_models import (
    make_sense_voice,
    make_vits,
    make_zipformer_ctc,
    make_zipformer_transducer,
    melody,
)
from tests.providers.test_sherpa_whole import sung
from voicechat.providers.sherpa_onnx import open_recognizer, open_synthesizer
from voicechat.testing.conformance import check_recognizer, check_synthesizer, leaving_nothing

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("make", [make_zipformer_ctc, make_zipformer_transducer])
async def test_streaming(make: Callable[[Path], Path], tmp_path: Path) -> None:
    async with leaving_nothing():
        recognizer = open_recognizer(model=str(make(tmp_path / "model")), trial=False)
        await recognizer.start()
        await check_recognizer(
            recognizer,
            melody((None, 0, None, 1, None, 2, None, 3, None, None, None, None, 4, None)),
        )
        await recognizer.aclose()


async def test_whole(tmp_path: Path) -> None:
    async with leaving_nothing():
        recognizer = open_recognizer(model=str(make_sense_voice(tmp_path / "model")), trial=False)
        await recognizer.start()
        await check_recognizer(
            recognizer, silence(300) + sung(4, 5, 4, 5) + silence(900) + sung(6, 7, 6)
        )
        await recognizer.aclose()


async def test_speech(tmp_path: Path) -> None:
    async with leaving_nothing():
        synthesizer = open_synthesizer(model=str(make_vits(tmp_path / "model")), trial=False)
        await synthesizer.start()
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()


async def test_piper(tmp_path: Path) -> None:
    async with leaving_nothing():
        synthesizer = open_synthesizer(
            model=str(make_vits(tmp_path / "model", piper=True)), trial=False
        )
        await synthesizer.start()
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()
