"""Two worker processes under MultiWorkerMirroredStrategy train as one process on the whole batch."""

import types

import data_parallel_cases as cases
import numpy as np
import pytest
import tensorflow as tf
from test_mirrored_strategy import TOLERANCE, of_case
from worker_processes import python_processes, wait_for, worker_environments

import tf_sparse_emb as tse

TRAINED = ["collection", "sgd", "row_wise_adagrad", "row_wise_adam", "ragged"]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What the cases return in each of two processes."""
    folders = [tmp_path_factory.mktemp(f"worker{i}") for i in range(2)]
    commands = [[cases.__file__, "worker", folder / "out.npz", *TRAINED, "saving", "refused"] for folder in folders]
    with python_processes(folders[0], commands, worker_environments(2)) as processes:
        wait_for(processes, folders[0], 400)
    return [np.load(folder / "out.npz") for folder in folders]


@pytest.mark.parametrize("name", TRAINED)
def test_two_workers_train_as_one_process_on_the_whole_batch(workers, name):
    want, got = cases.train(name, tf.distribute.get_strategy()), of_case(workers[0], name)
    assert got.keys() == want.keys() and len(want) > 2
    for key in want:
        np.testing.assert_allclose(got[key], want[key], **TOLERANCE, err_msg=key)


@pytest.mark.parametrize("name", [*TRAINED, "saving"])
def test_tables_variables_and_metrics_of_all_workers_are_bit_equal(workers, name):
    first, second = (of_case(worker, name) for worker in workers)
    assert first.keys() == second.keys() and len(first) > 2
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.parametrize("way", ["checkpoint", "weights", "file"])
def test_training_goes_on_from_what_each_worker_saved(workers, way):
    saving = of_case(workers[0], "saving")
    after = [key for key in saving if key.startswith("after/")]
    assert any("table" in key for key in after) and any("optimizer" in key for key in after)
    for key in after:
        restored = saving[key.replace("after", way, 1)]
        np.testing.assert_allclose(restored, saving[key], **TOLERANCE, err_msg=key)


REFUSED = {
    "regularizer": "embeddings_regularizer is not supported with 2 replicas in 2 processes",
    "scale_grad_by_freq": "scale_grad_by_freq=True is not supported with 2 replicas",
    "max_norm": "What works: embeddings_constraint=keras.constraints.MaxNorm",
    "counts": "counts is not supported with 2 replicas in 2 processes",
    "dense_optimizer": "must be of tse.optimizers, such as tse.optimizers.Adam, with several replicas",
    "loss_scale": "LossScaleOptimizer is not supported with several replicas",
    "seed": "must have the same seed on every worker, got 0 at replica 0 and 1 at replica 1: give it a seed",
    "rows": "must have the same rows on every worker",
    "nan": "grads[0, 0] is nan (key",
}


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("name", REFUSED)
def test_each_worker_refuses_by_name_what_workers_would_not_agree_on(workers, worker, name):
    assert REFUSED[name] in str(workers[worker][f"refused/{name}"])


def test_the_strategy_of_tensorflow_under_which_fit_fails_comes_with_a_warning(monkeypatch):
    class Plain(tf.distribute.MultiWorkerMirroredStrategy):
        num_replicas_in_sync = 2
        extended = types.SimpleNamespace(worker_devices=["CPU:0"])

        def __init__(self):
            pass

    monkeypatch.setattr(tf.distribute, "get_strategy", Plain)
    monkeypatch.setattr(tf.distribute, "in_cross_replica_context", lambda: True)
    with pytest.warns(UserWarning, match="they run under tse.distribute.MultiWorkerMirroredStrategy"):
        tse.TableConfig("item", None, 4).make_variable()
