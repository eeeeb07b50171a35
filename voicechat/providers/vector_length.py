"""Vectors of length 1, with as many dimensions as a client asks for."""

import numpy as np
import numpy.typing as npt


def normalized(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the vectors with length 1; a vector of zeros stays as it is."""
    single = vectors.astype(np.float32)
    lengths = np.linalg.norm(single, axis=-1, keepdims=True)
    return np.divide(single, np.where(lengths > 0, lengths, 1), dtype=np.float32)


def with_dimensions(
    vectors: npt.NDArray[np.float32], dimensions: int | None
) -> npt.NDArray[np.float32]:
    """Give vectors so many dimensions: the first ones, normalised again; or zeros after
    the last, which changes no cosine. None leaves them as they are.
    """
    own = vectors.shape[-1]
    if dimensions is None or dimensions == own:
        return vectors
    if dimensions < own:
        return normalized(vectors[..., :dimensions])
    return np.pad(vectors, ((0, 0), (0, dimensions - own)))
