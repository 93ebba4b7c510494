"""What Python knows of the C++ update rules (cc/lib/update_rules.h): their hyper-parameters and state."""

from dataclasses import dataclass, field

REQUIRED = object()


@dataclass(frozen=True)
class UpdateRule:
    """A rule's name, its hyper-parameters in the order of the C++ op with their defaults, and its slots.

    `slots` maps each slot's name to (its width for rows of width D, the argument of `bind` that gives its initial
    value or None for zero).
    """

    name: str
    hypers: dict
    slots: dict = field(default_factory=dict)

    def hyper_values(self, given):
        """Returns the values of all hyper-parameters in the op's order.

        Raises:
            ValueError: if one is unknown or missing.
        """
        for name in given:
            if name not in self.hypers:
                raise ValueError(f"rule {self.name} has the hyper-parameters {', '.join(self.hypers)}, got {name}")
        values = {**self.hypers, **given}
        for name, value in values.items():
            if value is REQUIRED:
                raise ValueError(f"rule {self.name} needs {name}")
        return list(values.values())

    def initial_state(self, dim, given):
        """Returns the S initial floats of a row's state.

        Raises:
            ValueError: if an initial value is given for what the rule does not keep.
        """
        known = [argument for _, argument in self.slots.values() if argument is not None]
        for name in given:
            if name not in known:
                raise ValueError(f"rule {self.name} has the initial values [{', '.join(known)}], got {name}")
        state = []
        for width, argument in self.slots.values():
            state += [float(given.get(argument, 0.0))] * width(dim)
        return state


_RULES = {
    rule.name: rule
    for rule in (
        UpdateRule("sgd", {"learning_rate": REQUIRED, "weight_decay": 0.0}),
        UpdateRule(
            "row_wise_adagrad",
            {"learning_rate": REQUIRED, "epsilon": 1e-8, "weight_decay": 0.0},
            {"accumulator": (lambda dim: 1, "initial_accumulator_value")},
        ),
        UpdateRule(
            "row_wise_adam",
            {"learning_rate": REQUIRED, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0},
            {"momentum": (lambda dim: dim, None), "velocity": (lambda dim: 1, None)},
        ),
    )
}


def get_rule(name):
    """Returns the rule of this name.

    Raises:
        ValueError: that lists the rules.
    """
    if name not in _RULES:
        raise ValueError(f"rule must be one of {', '.join(_RULES)}, got {name!r}")
    return _RULES[name]
