"""A-law and mu-law of ITU-T G.711 as tables: from one code byte to one 16-bit sample,
and back.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Table: TypeAlias = NDArray[np.int16]
CodeTable: TypeAlias = NDArray[np.uint8]
"""The code of each 16-bit sample, at the sample's value as an unsigned number."""


def _mu_law_table() -> Table:
    code = ~np.arange(256) & 0xFF  # the line carries the complement
    exponent = (code >> 4) & 7
    magnitude = (
        (((code & 0x0F) << 3) + 0x84) << exponent
    ) - 0x84  # 0x84: the encoder's bias of 33, at 16 bits
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law_table() -> Table:
    code = np.arange(256) ^ 0x55  # the line carries every other bit inverted
    exponent = (code >> 4) & 7
    step = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent == 0, step, (step + 0x100) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _all_samples() -> NDArray[np.int64]:
    return np.arange(1 << 16).astype(np.uint16).view(np.int16).astype(np.int64)


def _magnitude(samples: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    # One's complement, as in ITU-T G.191: -1 has the magnitude of 0.
    return np.where(samples < 0, ~samples, samples) >> (16 - bits)


def _mu_law_codes() -> CodeTable:
    samples = _all_samples()
    biased = np.minimum(_magnitude(samples, 14) + 33, 0x1FFF)
    exponent = np.floor(np.log2(biased)).astype(np.int64) - 5
    code = (exponent << 4) | ((biased >> (exponent + 1)) & 0x0F)
    inverted: CodeTable = (~np.where(samples < 0, code | 0x80, code) & 0xFF).astype(np.uint8)
    return inverted


def _a_law_codes() -> CodeTable:
    samples = _all_samples()
    magnitude = _magnitude(samples, 12)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int64) - 3, 0)
    mantissa = (magnitude >> np.maximum(exponent - 1, 0)) & 0x0F
    code = (exponent << 4) | mantissa
    inverted: CodeTable = (np.where(samples < 0, code, code | 0x80) ^ 0x55).astype(np.uint8)
    return inverted


MU_LAW: Table = _mu_law_table()
A_LAW: Table = _a_law_table()
MU_LAW_CODES: CodeTable = _mu_law_codes()
A_LAW_CODES: CodeTable = _a_law_codes()


def encoded(pcm: bytes, codes: CodeTable) -> bytes:
    """Encode whole s16le samples with one of the code tables: one byte for each."""
    line: CodeTable = codes[np.frombuffer(pcm, "<u2")]
    return line.tobytes()
