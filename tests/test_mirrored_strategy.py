"""Two replicas of one process under MirroredStrategy train as one process on the whole batch."""

from pathlib import Path

import data_parallel_cases as cases
import numpy as np
import pytest
import tensorflow as tf
from worker_processes import python_processes, wait_for

import tf_sparse_emb as tse

# Each replica sums its half of a batch, and then the halves are summed: only the order of float sums differs.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}
TRAINED = [name for name in cases.CASES if name != "refused"]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """What all cases return on two logical CPUs, which TensorFlow must know of before anything else: a process."""
    folder = tmp_path_factory.mktemp("replicas")
    command = [cases.__file__, "replicas", folder / "out.npz", *cases.CASES, "saving"]
    with python_processes(folder, [command], [{}]) as processes:
        wait_for(processes, folder, 400)
    return np.load(folder / "out.npz")


def of_case(results, name):
    prefix = f"{name}/"
    return {key.removeprefix(prefix): results[key] for key in results.files if key.startswith(prefix)}


@pytest.mark.parametrize("name", TRAINED)
def test_two_replicas_train_as_one_process_on_the_whole_batch(replicas, name):
    want, got = cases.train(name, tf.distribute.get_strategy()), of_case(replicas, name)
    assert got.keys() == want.keys() and len(want) > 2
    for key in want:
        np.testing.assert_allclose(got[key], want[key], **TOLERANCE, err_msg=key)


def test_a_step_counts_once_whatever_the_number_of_replicas(replicas):
    assert replicas["collection/iterations"] == 2 * cases.N // cases.BATCH


@pytest.mark.parametrize("way", ["checkpoint", "weights", "file"])
def test_training_goes_on_from_what_was_saved(replicas, way):
    saving = of_case(replicas, "saving")
    after = [key for key in saving if key.startswith("after/")]
    assert any("table" in key for key in after) and any("optimizer" in key for key in after)
    for key in after:
        restored = saving[key.replace("after", way, 1)]
        np.testing.assert_allclose(restored, saving[key], **TOLERANCE, err_msg=key)


REFUSED = {
    "regularizer": "embeddings_regularizer is not supported with 2 replicas in 1 processes",
    "scale_grad_by_freq": "scale_grad_by_freq=True is not supported with 2 replicas",
    "build_in_replica": "table 'embeddings' cannot be built by a replica: build the model before strategy.run",
    "dense_optimizer": "must be of tse.optimizers, such as tse.optimizers.Adam, with several replicas",
    "loss_scale": "LossScaleOptimizer is not supported with several replicas",
    "use_ema": "use_ema is not supported with several replicas",
    "apply_outside": "apply must be called by each replica, in strategy.run",
    "nan": "grads[0, 0] is nan (key",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_differ_from_one_process_is_refused_by_name(replicas, name):
    assert REFUSED[name] in str(replicas[f"refused/{name}"])


@pytest.mark.parametrize("name", ["max_norm", "counts", "seed", "rows"])
def test_what_replicas_of_one_process_agree_on_is_not_refused(replicas, name):
    assert str(replicas[f"refused/{name}"]) == ""


@pytest.mark.parametrize("strategy", [tf.distribute.TPUStrategy, tf.distribute.experimental.CentralStorageStrategy])
def test_other_strategies_are_refused_by_name(monkeypatch, strategy):
    class Other(strategy):
        num_replicas_in_sync = 2

        def __init__(self):
            pass

    monkeypatch.setattr(tf.distribute, "get_strategy", Other)
    with pytest.raises(ValueError, match="MirroredStrategy or MultiWorkerMirroredStrategy, got Other"):
        tse.Embedding(None, 4).build()


def test_a_strategy_of_one_replica_changes_nothing():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        one = cases.train("row_wise_adam", tf.distribute.get_strategy())
    default = cases.train("row_wise_adam", tf.distribute.get_strategy())
    for key in default:
        np.testing.assert_array_equal(one[key], default[key], err_msg=key)


def test_the_guide_to_data_parallelism_trains():
    code = (Path(__file__).parents[1] / "docs" / "data_parallel.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    # Here is one worker, in which TensorFlow has been used before.
    one_device = "tse.distribute.MirroredStrategy(['CPU:0'])"
    exec(code.replace("tse.distribute.MultiWorkerMirroredStrategy()", one_device), names)
    data = tf.data.Dataset.from_tensor_slices((np.arange(160).reshape(4, 40), np.ones((4, 1)))).batch(2)
    assert int(names["train"](data).layers[0].embeddings.size()) == 160
