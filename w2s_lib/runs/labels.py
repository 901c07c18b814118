"""Hard labels of probabilities: the one rule for a tie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def predicted_label(p: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Hard 0/1 labels of P(y = 1), any shape: 1 where p > 0.5. A tie is a 0, here and everywhere.

    Raises:
        ValueError: a probability outside [0, 1], or NaN.
    """
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("probabilities must be in [0, 1] and not NaN")
    return (values > 0.5).astype(np.int8)
