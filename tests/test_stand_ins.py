"""`gen_ops.library.replaced_by`: ops are replaced where it says, and nowhere else."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library


class Recorder:
    def __getattr__(self, name):
        return lambda *args, **kwargs: name


def test_ops_are_replaced_in_this_thread_and_in_no_other():
    with library.replaced_by(Recorder()), ThreadPoolExecutor(1) as thread:
        assert library.sparse_emb_embedding_key_dedup(keys=[1]) == "sparse_emb_embedding_key_dedup"
        unique = thread.submit(tse.ops.embedding_key_dedup, np.array([5, 5])).result().unique_keys
        with library.replaced_by(None):
            np.testing.assert_array_equal(tse.ops.embedding_key_dedup([5, 5]).unique_keys, unique)
    np.testing.assert_array_equal(tse.ops.embedding_key_dedup([5, 5]).unique_keys, [5])


def test_ops_are_back_after_an_error():
    with pytest.raises(KeyError), library.replaced_by(Recorder()):
        raise KeyError
    np.testing.assert_array_equal(tse.ops.embedding_key_dedup([5, 5]).unique_keys, [5])


def test_an_op_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError):
        library.sparse_emb_nothing()
