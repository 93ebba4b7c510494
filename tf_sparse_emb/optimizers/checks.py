"""What the arguments of optimizers may be: checks that name the argument, the requirement and what came."""

import math

import keras
import numpy as np


def check_beta(name, value):
    """Raises a ValueError unless 0 <= value < 1."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")


def check_positive(name, value, or_none=False):
    """Raises a ValueError unless value is positive and finite (or None, where that is allowed)."""
    if or_none and value is None:
        return
    if not (_is_finite(value) and value > 0):
        raise ValueError(f"{name} must be positive{' or None' if or_none else ''}, got {value!r}")


def check_not_negative(name, value, or_none=False):
    """Raises a ValueError unless value is at least 0 and finite (or None, where that is allowed)."""
    if or_none and value is None:
        return
    if not (_is_finite(value) and value >= 0):
        raise ValueError(f"{name} must not be negative, got {value!r}")


def check_not_positive(name, value):
    """Raises a ValueError unless value is at most 0 and finite."""
    if not (_is_finite(value) and value <= 0):
        raise ValueError(f"{name} must not be positive, got {value!r}")


def check_no_loss_scale(name, optimizer):
    """Raises a ValueError if an optimizer of a part of the variables divides by what nobody has multiplied by."""
    if getattr(optimizer, "loss_scale_factor", None) or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"{name} must not scale the loss, which is one for all variables, got {optimizer!r}; give "
            "loss_scale_factor to the optimizer of all, or wrap that in tse.optimizers.LossScaleOptimizer"
        )


def _is_finite(value):
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
