"""TensorFlow's checkpoints: `tf.train.Checkpoint` and `CheckpointManager`."""

import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from saving_cases import assert_same, contents, differ, make_model, tables_of, train

import tf_sparse_emb as tse


def _checkpoint(model):
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(a trained model's contents, the path of its checkpoint)."""
    keras.utils.set_random_seed(1)
    model = make_model()
    train(model, 3)
    return contents(model), _checkpoint(model).save(tmp_path_factory.mktemp("checkpoint") / "c")


def test_the_checkpoint_holds_plain_tensors(tmp_path):
    table = tse.EmbeddingVariable(3, counts="seen")
    table.bind("row_wise_adam")
    table.lookup([7, 9, 2**40], insert=True)
    path = tf.train.Checkpoint(items=table).write(str(tmp_path / "c"))
    assert ["items/table/.ATTRIBUTES/state", [3, 4 + 4]] in [list(entry) for entry in tf.train.list_variables(path)]
    keys = tf.train.load_variable(path, "items/table/.ATTRIBUTES/keys")
    rows = tf.train.load_variable(path, "items/table/.ATTRIBUTES/rows")
    assert sorted(keys) == [7, 9, 2**40]
    np.testing.assert_array_equal(rows, table.lookup(keys))


def test_restore_finds_everything_and_says_so(saved):
    content, path = saved
    model = make_model()
    status = _checkpoint(model).restore(path)
    model.optimizer.build(model.trainable_variables)
    status.assert_existing_objects_matched().assert_consumed()
    assert_same(contents(model), content)


def test_restore_with_other_names_and_layers_that_were_made_in_another_order(tmp_path):
    def make(names):
        layers = {}
        for name in names:  # the order in which tables are made, and Keras' numbers in their names
            layers[name] = tse.Embedding(None, 3, combiner="mean")
            layers[name].build()
        keys = keras.Input([2], dtype="int64")
        model = keras.Model(keys, keras.layers.Dense(1)(layers["a"](keys) + 2 * layers["b"](keys + 5)))
        model.compile(tse.optimizers.Adam(0.05), "mse")
        return model, layers

    def step(model):
        keys = np.array([[1, 2], [2, 3]])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(keys, training=True) ** 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    model, layers = make("ab")
    step(model)
    path = _checkpoint(model).write(str(tmp_path / "c"))
    other, other_layers = make("ba")
    _checkpoint(other).read(path)
    for one in (model, other):
        step(one)
    for name in "ab":
        assert other_layers[name].embeddings.numpy() == layers[name].embeddings.numpy()


class Net(keras.Model):
    """Makes its layers when it is called, and its tables when they are."""

    def __init__(self):
        super().__init__()
        self.first = tse.Embedding(None, 3, combiner="mean", counts="seen")
        self.second = tse.Embedding(50, 2, combiner="sum")
        self.head = keras.layers.Dense(1)

    def call(self, keys, training=None):
        pooled = [self.first(keys, training=training), self.second(keys % 50, training=training)]
        return self.head(tf.concat(pooled, -1))


def _trained_net():
    model = Net()
    model.compile(tse.optimizers.RowWiseAdam(0.05), "mse")
    model(np.array([[1, 2, 3]]))
    train(model, 3)
    return model


@pytest.mark.parametrize("how", ["layers first", "a call", "a function", "fit"])
def test_tables_that_are_not_there_yet_are_restored_when_they_are_made(how, tmp_path):
    model = _trained_net()
    path = _checkpoint(model).write(str(tmp_path / "c"))
    later = Net()
    later.compile(tse.optimizers.SGD(0.1) if how == "fit" else tse.optimizers.RowWiseAdam(0.05), "mse")
    tf.train.Checkpoint(model=later).read(path).expect_partial()
    keys = np.array([[1, 2, 3]])
    if how == "layers first":
        later.first.build()
        later.second.build()
    if how == "a function":
        tf.function(later)(tf.constant(keys))
    elif how == "fit":
        with pytest.warns(UserWarning, match="state of rule row_wise_adam .* is dropped"):
            later.fit(keys, np.zeros(1), verbose=0)
    else:
        later(keys)
    for got, want in zip(tables_of(later), tables_of(model), strict=True):
        known = np.setdiff1d(want.numpy().keys, keys if how == "fit" else [])
        np.testing.assert_array_equal(got.lookup(known), want.lookup(known))
        if how != "fit":
            assert got.numpy() == want.numpy()


def test_a_model_takes_its_tables_from_a_larger_checkpoint(saved):
    content, path = saved
    model = make_model()
    status = tf.train.Checkpoint(model=model).restore(path)
    with pytest.raises(AssertionError, match="optimizer"):
        status.assert_consumed()
    status.assert_existing_objects_matched().expect_partial()
    assert_same(
        {k: v for k, v in contents(model).items() if k.startswith("table")},
        {k: v for k, v in content.items() if k.startswith("table")},
    )


def test_a_checkpoint_without_the_table_is_found_out(tmp_path):
    path = tf.train.Checkpoint(head=tf.Variable(1.0)).write(str(tmp_path / "c"))
    table = tse.EmbeddingVariable(3)
    table.lookup([1], insert=True)
    before = table.numpy()
    status = tf.train.Checkpoint(head=tf.Variable(0.0), table=table).read(path)
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        status.assert_existing_objects_matched()
    assert table.numpy() == before


def test_a_manager_keeps_the_newest(tmp_path):
    model = make_model()
    manager = tf.train.CheckpointManager(_checkpoint(model), str(tmp_path), max_to_keep=2)
    want = []
    for first in range(0, 6, 2):
        train(model, 2, first=first)
        manager.save()
        want.append(contents(model))
    assert {file.name.split(".")[0] for file in tmp_path.iterdir()} == {"ckpt-2", "ckpt-3", "checkpoint"}
    for path, content in zip(manager.checkpoints, want[1:], strict=True):
        other = make_model()
        other.optimizer.build(other.trainable_variables)
        _checkpoint(other).restore(path).assert_consumed()
        assert_same(contents(other), content)


def test_restoring_an_older_checkpoint_takes_a_model_back(tmp_path):
    model = make_model()
    train(model, 2)
    checkpoint = _checkpoint(model)
    path, before = checkpoint.write(str(tmp_path / "c")), contents(model)
    train(model, 2, first=2)
    after = contents(model)
    assert differ(before, after)
    checkpoint.read(path).assert_consumed()
    assert_same(contents(model), before)
    train(model, 2, first=2)
    assert_same(contents(model), after)


def test_a_module_and_a_bare_table_are_saved(storage, make_table, tmp_path):
    module = tf.Module()
    module.table = make_table(storage, 3, rows=40, counts="seen")
    module.table.lookup([1, 5, 9], insert=True)
    path = tf.train.Checkpoint(module).write(str(tmp_path / "c"))
    other = tf.Module()
    other.table = make_table(storage, 3, rows=40, counts="seen", seed=5)
    tf.train.Checkpoint(other).read(path).assert_consumed()
    assert other.table.numpy() == module.table.numpy()
    assert other.table.seed == module.table.seed


@pytest.mark.parametrize("rows", [0, 1, 70_000])
def test_tables_of_no_and_of_many_rows_are_saved(rows, tmp_path):
    table = tse.EmbeddingVariable(31, seed=1)
    if rows:
        table.lookup(np.arange(rows) * 3, insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    other = tse.EmbeddingVariable(31, seed=2)
    other.lookup([1], insert=True)
    tf.train.Checkpoint(table=other).read(path).assert_consumed()
    assert other.numpy() == table.numpy()


def test_a_checkpoint_is_cut_into_shards(tmp_path):
    table = tse.EmbeddingVariable(8, seed=1)
    table.lookup(np.arange(5000), insert=True)
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=10_000)
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    value = tf.Variable(tf.range(9000))
    path = tf.train.Checkpoint(table=table, value=value).write(str(tmp_path / "c"), options)
    other, other_value = tse.EmbeddingVariable(8, seed=2), tf.Variable(tf.zeros([9000], tf.int32))
    tf.train.Checkpoint(table=other, value=other_value).read(path).assert_consumed()
    assert other.numpy() == table.numpy()
    np.testing.assert_array_equal(other_value, value)


def test_an_asynchronous_checkpoint_is_whole(tmp_path):
    table = tse.EmbeddingVariable(8, seed=1)
    table.lookup(np.arange(500), insert=True)
    checkpoint = tf.train.Checkpoint(table=table, value=tf.Variable(1.0))
    path = checkpoint.save(tmp_path / "c", tf.train.CheckpointOptions(enable_async=True))
    checkpoint.sync()
    other = tse.EmbeddingVariable(8, seed=2)
    tf.train.Checkpoint(table=other, value=tf.Variable(0.0)).restore(path).expect_partial()
    assert other.numpy() == table.numpy()


def test_checkpoints_go_between_storages_and_optimizers(tmp_path):
    table = tse.EmbeddingVariable(3, seed=1)
    table.bind("row_wise_adagrad")
    table.lookup([1, 5, 9], insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    other = tse.EmbeddingVariable(3, storage="chained", seed=2)
    other.bind("momentum")
    with pytest.warns(
        UserWarning, match="rule momentum: the state of rule row_wise_adagrad in checkpoint '.*' is dropped"
    ):
        tf.train.Checkpoint(table=other).read(path)
    np.testing.assert_array_equal(other.lookup([1, 5, 9, 11]), table.lookup([1, 5, 9, 11]))


# What is refused.


def test_another_width_is_refused_and_the_table_is_as_before(tmp_path):
    table = tse.EmbeddingVariable(3)
    table.lookup([1], insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    wide = tse.EmbeddingVariable(4)
    wide.lookup([2], insert=True)
    before = wide.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="rows of width 4, but checkpoint '.*' .*rows of width 3"):
        tf.train.Checkpoint(table=wide).read(path)
    assert wide.numpy() == before


def test_keys_out_of_range_are_refused_and_the_table_is_as_before(tmp_path):
    table = tse.EmbeddingVariable(3)
    table.lookup([1, 50], insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    bounded = tse.EmbeddingVariable(3, input_dim=50)
    before = bounded.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\).*in checkpoint '.*table"):
        tf.train.Checkpoint(table=bounded).read(path)
    assert bounded.numpy() == before


@pytest.mark.parametrize(
    "part, dtype, text",
    [("keys", "int32", r"int64 \[9\], got int32 \[9\]"), ("rows", "float64", "float .*, got double")],
)
def test_another_dtype_is_refused_and_the_table_is_as_before(part, dtype, text, tmp_path):
    table = tse.EmbeddingVariable(3)
    table.lookup(np.arange(9), insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    tensors = {name: tf.train.load_variable(path, name) for name, _ in tf.train.list_variables(path)}
    (name,) = (name for name in tensors if name.endswith(f"/{part}"))
    tensors[name] = tensors[name].astype(dtype)
    other = str(tmp_path / "other")
    tf.raw_ops.SaveV2(
        prefix=other,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    before = table.numpy()
    with pytest.raises(tf.errors.DataLossError, match=f"checkpoint '{other}' .*/{part} must be {text}"):
        tf.train.Checkpoint(table=table).read(other)
    assert table.numpy() == before


@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_a_damaged_checkpoint_is_refused_and_the_table_is_as_before(damage, tmp_path):
    table = tse.EmbeddingVariable(8)
    table.lookup(np.arange(1000), insert=True)
    path = tf.train.Checkpoint(table=table).write(str(tmp_path / "c"))
    (data,) = (file for file in tmp_path.iterdir() if file.stat().st_size > 30_000)
    content = bytearray(data.read_bytes())
    content[20_000] ^= 4
    data.write_bytes(content if damage == "flipped" else content[:20_000])
    other = tse.EmbeddingVariable(8)
    other.lookup([2], insert=True)
    before = other.numpy()
    with pytest.raises(tf.errors.DataLossError, match="checkpoint '.*'.*(Checksum does not match|Read less bytes)"):
        tf.train.Checkpoint(table=other).read(path)
    assert other.numpy() == before


@pytest.fixture(scope="module")
def large():
    """A table of several chunks, with counts and a state."""
    table = tse.EmbeddingVariable(300, seed=3)
    table.bind("row_wise_adagrad")
    rng = np.random.default_rng(1)
    keys = rng.choice(10**9, 10_000, replace=False)
    grads = rng.normal(size=(len(keys), 300)).astype(np.float32)
    tse.ops.embedding_update(table, keys, grads, "row_wise_adagrad", learning_rate=0.1)
    return table


def test_tensorflow_reads_a_table_of_several_chunks_as_whole_tensors(large, tmp_path):
    path = tf.train.Checkpoint(table=large).write(str(tmp_path / "c"))
    shapes = dict(tf.train.list_variables(path))
    prefix = "table/table/.ATTRIBUTES"
    assert [shapes[f"{prefix}/{name}"] for name in ("keys", "rows", "state")] == [[10_000], [10_000, 300], [10_000, 1]]
    keys, rows, state = (tf.train.load_variable(path, f"{prefix}/{name}") for name in ("keys", "rows", "state"))
    want_keys, want_rows = (part.numpy() for part in large.export(with_state=True))
    got, want = np.argsort(keys), np.argsort(want_keys)
    np.testing.assert_array_equal(keys[got], want_keys[want])
    np.testing.assert_array_equal(np.concatenate([rows, state], 1)[got], want_rows[want])


def test_a_checkpoint_that_tensorflow_has_written_anew_is_read(large, tmp_path):
    path = tf.train.Checkpoint(table=large).write(str(tmp_path / "c"))
    names = [name for name, _ in tf.train.list_variables(path)]
    # Whole tensors, in one file, in an order of its own.
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "d"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.train.load_variable(path, name) for name in names],
    )
    other = tse.EmbeddingVariable(300)
    other.bind("row_wise_adagrad")
    tf.train.Checkpoint(table=other).read(str(tmp_path / "d"))
    assert other.numpy() == large.numpy()


@pytest.mark.parametrize("at", [0.1, 0.33, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_damage_in_any_chunk_of_a_checkpoint_is_found(damage, at, large, tmp_path):
    path = tf.train.Checkpoint(table=large).write(str(tmp_path / "c"))
    (data,) = (file for file in tmp_path.iterdir() if file.stat().st_size > 10_000_000)
    content = bytearray(data.read_bytes())
    place = int(at * len(content))
    content[place] ^= 64
    data.write_bytes(content if damage == "flipped" else content[:place])
    other = tse.EmbeddingVariable(300)
    other.lookup([2], insert=True)
    before = other.numpy()
    with pytest.raises(tf.errors.DataLossError, match="checkpoint '.*'.*(Checksum does not match|Read less bytes)"):
        tf.train.Checkpoint(table=other).read(path)
    assert other.numpy() == before


def test_a_failed_save_leaves_the_checkpoint_that_was_there(tmp_path):
    table = tse.EmbeddingVariable(8)
    table.lookup(np.arange(100), insert=True)
    checkpoint = tf.train.Checkpoint(table=table)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2)
    path, before = manager.save(), table.numpy()
    table.lookup(np.arange(10_000), insert=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        with pytest.raises(tf.errors.OpError, match="File too large|ckpt-2"):
            manager.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert tf.train.latest_checkpoint(tmp_path) == path
    checkpoint.restore(path)
    assert table.numpy() == before
