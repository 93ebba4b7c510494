"""Random moments and places, by a seed that is printed: CRASH_SEED gives it again."""

import os
import random

import pytest


@pytest.fixture
def moments(request):
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(10**9)))
    print(f"\n{request.node.name}: CRASH_SEED={seed}")
    return random.Random(seed)
