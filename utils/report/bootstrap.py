"""How sure a mean over seeds is: its 95 % bootstrap interval.

Source: percentile interval: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
FEWEST = 3  # seeds below which a resampled mean says nothing


def bootstrap_interval(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """95 % percentile interval of the mean, always from the same draws; None below three values."""
    if len(values) < FEWEST:
        return None
    known = np.array(values)
    drawn = np.random.default_rng(0).integers(len(known), size=(resamples, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
