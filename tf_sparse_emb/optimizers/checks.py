"""What the arguments of optimizers may be: checks that name the argument, the requirement and what came."""

import math

import numpy as np


def check_beta(name, value):
    """Raises a ValueError unless 0 <= value < 1."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")


def check_positive(name, value):
    """Raises a ValueError unless value is positive and finite."""
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"{name} must be positive, got {value!r}")


def check_not_negative(name, value):
    """Raises a ValueError unless value is at least 0 and finite."""
    if not (_is_finite(value) and value >= 0):
        raise ValueError(f"{name} must not be negative, got {value!r}")


def check_not_positive(name, value):
    """Raises a ValueError unless value is at most 0 and finite."""
    if not (_is_finite(value) and value <= 0):
        raise ValueError(f"{name} must not be positive, got {value!r}")


def _is_finite(value):
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
