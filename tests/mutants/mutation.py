"""What a mutation is."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A bug: `old` becomes `new` in `file`."""

    name: str
    file: str
    old: str
    new: str
    test: str
