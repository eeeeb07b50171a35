"""A-law and mu-law of ITU-T G.711 as tables from one code byte to one 16-bit sample."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Table: TypeAlias = NDArray[np.int16]


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


MU_LAW: Table = _mu_law_table()
A_LAW: Table = _a_law_table()
