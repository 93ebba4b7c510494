"""How optimizers count their steps."""

import types


def count_in_place(optimizer):
    """Has an optimizer of Keras count its steps by one op.

    Keras' `Variable.assign_add` reads, adds and writes: of several workers that step at once on parameter servers some
    would not be counted, and the learning rate of a schedule would fall too late.
    """
    steps = optimizer.iterations
    steps.assign_add = types.MethodType(_assign_add, steps)


def _assign_add(variable, value):
    return variable.value.assign_add(value)
