"""What the arguments of optimizers may be: checks that name the argument, the requirement and what came."""


def check_beta(name, value):
    """Raises a ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def check_positive(name, value):
    """Raises a ValueError unless value is positive and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, got {value}")


def check_not_negative(name, value):
    """Raises a ValueError unless value is at least 0 and finite."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be negative, got {value}")
