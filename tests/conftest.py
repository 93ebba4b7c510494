"""The axes of the suite as fixtures, and one seed for every test."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import reference  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402


@pytest.fixture(autouse=True)
def _same_seed_for_every_test():
    keras.utils.set_random_seed(20240601)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=reference.STORAGES)
def storage(request):
    return request.param


@pytest.fixture(params=reference.HASH_STORAGES)
def hash_storage(request):
    return request.param


@pytest.fixture(params=reference.WIDTHS, ids=lambda dim: f"dim{dim}")
def dim(request):
    return request.param


@pytest.fixture(params=reference.COMBINERS)
def combiner(request):
    return request.param


@pytest.fixture(params=reference.RULES)
def rule(request):
    return request.param


@pytest.fixture
def make_table():
    """make_table(storage, dim, rows=V, ...): an EmbeddingVariable; V is the vocabulary that "index" needs."""

    def make(storage, dim, rows=1000, **kwargs):
        if storage == "index":
            kwargs.setdefault("input_dim", rows)
        kwargs.setdefault("seed", 11)
        return tse.EmbeddingVariable(dim, storage=storage, **kwargs)

    return make


@pytest.fixture
def sorted_export():
    """sorted_export(table): (keys, rows with their state), sorted by key, for comparing whole tables."""

    def export(table):
        keys, rows = table.export(with_state=True)
        keys, rows = np.asarray(keys), np.asarray(rows)
        order = np.argsort(keys)
        return keys[order], rows[order]

    return export
