"""tse.EmbeddingCollection takes few ops, however many features there are."""

import pytest
import tensorflow as tf
from collection_cases import build_collection

import tf_sparse_emb as tse

KINDS = {
    "single": tf.TensorSpec([None], tf.int64),
    "dense": tf.TensorSpec([None, 5], tf.int64),
    "ragged": tf.RaggedTensorSpec([None, None], tf.int64),
}


def _nodes(kind, num_features, num_tables):
    """The nodes of the graph of a training pass and its gradient, and those that are ops of this package."""
    layer = build_collection(
        [tse.TableConfig(f"t{t}", None, 8) for t in range(num_tables)],
        [tse.FeatureConfig(f"f{f}", f"t{f % num_tables}") for f in range(num_features)],
        concat=True,
    )

    def call(inputs):
        with tf.GradientTape() as tape:
            output = layer(inputs, training=True)
        return output, tape.gradient(output, list(layer.tables.values()))

    graph = tf.function(call).get_concrete_function({f"f{f}": KINDS[kind] for f in range(num_features)}).graph
    operations = graph.get_operations()
    return len(operations), sorted(op.type for op in operations if op.type.startswith("SparseEmb>"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_step_of_26_features_has_hardly_more_nodes_than_one_of_2(kind, shared):
    """The ops of this package are four, however many features there are.

    Each more feature brings its keys, and ragged ones their row_splits. A table of its own brings 6 nodes: its handle
    and its value come in, the value is read, and the three tensors of its gradient go out. One more is allowed. A layer
    for each feature would bring more than 45.
    """
    few, few_ops = _nodes(kind, 2, 1 if shared else 2)
    many, many_ops = _nodes(kind, 26, 1 if shared else 26)
    assert many_ops == few_ops and len(many_ops) == 4
    assert (many - few) / 24 <= (2 if kind == "ragged" else 1) + (0 if shared else 6) + 1
