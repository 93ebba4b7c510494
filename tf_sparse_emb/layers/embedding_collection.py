"""Many categorical features in one layer."""

import keras
import tensorflow as tf

from tf_sparse_emb.features import FeatureInput, LookedUpTable, look_up, symbolic_output
from tf_sparse_emb.layers.configs import FeatureConfig, TableConfig
from tf_sparse_emb.layers.table_layer import TableLayer
from tf_sparse_emb.ops.embedding_lookup import check_missing


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class EmbeddingCollection(TableLayer):
    """Embeds many features at once: a dict of keys becomes a dict of embeddings, or one tensor.

    Features on one table are deduplicated together and looked up once, and tables of one width share each op: the
    number of TensorFlow ops in a step hardly grows with the number of features.

    >>> layer = tse.EmbeddingCollection(
    ...     [tse.TableConfig("item", None, 8), tse.TableConfig("country", 200, 4)],
    ...     [
    ...         tse.FeatureConfig("item", "item"),
    ...         tse.FeatureConfig("clicked_items", "item", combiner="mean", max_length=50),
    ...         tse.FeatureConfig("country", "country"),
    ...     ],
    ...     concat=True,
    ... )
    >>> clicked = tf.ragged.constant([[7, 2**40], []], dtype=tf.int64)
    >>> layer({"item": np.array([1, 2]), "clicked_items": clicked, "country": np.array([3, 4])}).shape
    TensorShape([2, 20])

    Args:
        tables: list of `tse.TableConfig`, of different names.
        features: list of `tse.FeatureConfig`, of different names.
        concat: bool, default False. Return one tensor [batch, sum of D], the features side by side in the order given.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer.

    Call arguments:
        inputs: dict of feature name -> keys, int32, int64 or string: [batch], [batch, keys], `tf.RaggedTensor` or, with
            a combiner, `tf.SparseTensor`. Names that are no features are passed over.
        weights: None or dict of feature name -> weights of the keys, as for `tse.Embedding`.
        labels: None or numbers [batch], which tables with counts "clicked" add to the counts of all keys.
        training: bool or None. As for `tse.Embedding`, with training=True new keys get rows.

    Output: dict of feature name -> [batch, D], or what `tse.FeatureConfig` says for combiner None.

    Attributes:
        tables: dict of table name -> `tse.EmbeddingVariable`, once the layer is built.

    Raises:
        ValueError: if names repeat, a feature's table is unknown, a feature has no keys in a call, or concat meets a
            feature that is not [batch, D].
        TypeError, tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError: as `tse.Embedding`.
    """

    def __init__(self, tables, features, concat=False, missing="initial", **kwargs):
        super().__init__(**kwargs)
        _check_configs("tables", tables, TableConfig)
        _check_configs("features", features, FeatureConfig)
        check_missing(missing)
        known = {table.name for table in tables}
        for feature in features:
            if feature.table not in known:
                raise ValueError(
                    f"the table of feature '{feature.name}' must be one of {', '.join(sorted(known))}, got "
                    f"{feature.table!r}"
                )
        self.table_configs = tuple(tables)
        self.feature_configs = tuple(features)
        self.concat = concat
        self.missing = missing

    def build(self, input_shape=None):
        """Creates the tables, `self.tables`."""
        if self.built:
            return
        self.tables = {config.name: config.make_variable() for config in self.table_configs}
        for table in self.tables.values():
            table.trainable = self.trainable
        self.built = True

    def call(self, inputs, weights=None, labels=None, training=None):
        """Looks the keys of all features up; see the class."""
        self._check_names(inputs)
        weights = weights or {}
        _check_known("weights", weights, self.feature_configs)
        outputs = {}
        for width in dict.fromkeys(config.output_dim for config in self.table_configs):
            tables = {config.name: config for config in self.table_configs if config.output_dim == width}
            features = [feature for feature in self.feature_configs if feature.table in tables]
            used = list(dict.fromkeys(feature.table for feature in features))
            if not features:
                continue
            values = look_up(
                [
                    LookedUpTable(
                        self.tables[name], tables[name].embeddings_regularizer, tables[name].scale_grad_by_freq
                    )
                    for name in used
                ],
                [
                    self._feature_input(feature, tables[feature.table], used, inputs, weights, labels)
                    for feature in features
                ],
                insert=bool(training) and self.trainable,
                missing=self.missing,
                add_loss=self.add_loss if self.trainable else None,
            )
            for feature, value in zip(features, values, strict=True):
                if feature.combiner is None and feature.max_length is not None and isinstance(value, tf.RaggedTensor):
                    value = value.to_tensor(shape=[None, feature.max_length, width])
                outputs[feature.name] = tf.cast(value, self.compute_dtype)
        outputs = {feature.name: outputs[feature.name] for feature in self.feature_configs}
        if not self.concat:
            return outputs
        self._check_ranks(outputs)
        return tf.concat(list(outputs.values()), -1)

    def _feature_input(self, feature, table, used_tables, inputs, weights, labels):
        name = f"keys of feature '{feature.name}'"
        keys, key_weights = inputs[feature.name], weights.get(feature.name)
        if feature.combiner is None and feature.max_length is not None:
            keys = _truncate(keys, feature.max_length, name)
        if not isinstance(keys, (tf.RaggedTensor, tf.SparseTensor)):
            keys = tf.convert_to_tensor(keys)
        skipped = {0} if feature.mask_zero else set()
        if table.padding_idx is not None:
            skipped.add(table.padding_idx)
        return FeatureInput.of(
            keys,
            feature.combiner,
            name=name,
            weights=key_weights,
            labels=labels if table.counts == "clicked" else None,
            skipped=sorted(skipped),
            max_length=feature.max_length,
            table=used_tables.index(feature.table),
            input_dim=table.input_dim,
            each=isinstance(keys, tf.Tensor) and keys.shape.rank == 1,
        )

    def compute_output_spec(self, inputs, weights=None, labels=None, training=None):
        """Returns the symbolic outputs for symbolic keys."""
        self._check_names(inputs)
        widths = {config.name: config.output_dim for config in self.table_configs}
        outputs = {}
        for feature in self.feature_configs:
            keys, width = inputs[feature.name], widths[feature.table]
            name = f"keys of feature '{feature.name}'"
            combiner = None if len(keys.shape) == 1 else feature.combiner
            output = symbolic_output(keys, combiner, width, self.compute_dtype, name)
            if feature.combiner is None and feature.max_length is not None and len(keys.shape) > 1:
                output = keras.KerasTensor((keys.shape[0], feature.max_length, width), dtype=self.compute_dtype)
            outputs[feature.name] = output
        if not self.concat:
            return outputs
        self._check_ranks(outputs)
        batch = next(iter(outputs.values())).shape[0]
        return keras.KerasTensor((batch, sum(output.shape[-1] for output in outputs.values())), self.compute_dtype)

    def _check_names(self, inputs):
        if not isinstance(inputs, dict):
            raise TypeError(f"inputs must be a dict of feature name -> keys, got {type(inputs).__name__}")
        missing = [feature.name for feature in self.feature_configs if feature.name not in inputs]
        if missing:
            raise ValueError(f"inputs must have keys of every feature, got none of {', '.join(missing)}")

    def _check_ranks(self, outputs):
        for name, output in outputs.items():
            if isinstance(output, tf.RaggedTensor) or len(output.shape) != 2:
                raise ValueError(
                    f"concat=True needs [batch, D] of every feature, but feature '{name}' gives shape "
                    f"{tuple(output.shape)}: give it a combiner"
                )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "tables": [config.get_config() for config in self.table_configs],
            "features": [config.get_config() for config in self.feature_configs],
            "concat": self.concat,
            "missing": self.missing,
        }

    @classmethod
    def from_config(cls, config):
        """Makes the layer of what `get_config` returned."""
        tables = [TableConfig(**table) for table in config["tables"]]
        features = [FeatureConfig(**feature) for feature in config["features"]]
        return cls(**{**config, "tables": tables, "features": features})


def _check_configs(name, configs, kind):
    """Raises unless `configs` is a list of `kind` with different names."""
    if not isinstance(configs, (list, tuple)) or not configs:
        raise ValueError(f"{name} must be a list of tse.{kind.__name__}, got {configs!r}")
    names = set()
    for config in configs:
        if not isinstance(config, kind):
            raise TypeError(f"{name} must be tse.{kind.__name__}, got {type(config).__name__}")
        if config.name in names:
            raise ValueError(f"the names of {name} must differ, got '{config.name}' twice")
        names.add(config.name)


def _check_known(name, given, features):
    unknown = set(given) - {feature.name for feature in features}
    if unknown:
        raise ValueError(f"{name} must be of features of the layer, got {', '.join(sorted(unknown))}")


def _truncate(keys, max_length, name):
    """The first max_length keys of each row, ragged: rows of dense keys may be shorter."""
    if isinstance(keys, tf.SparseTensor):
        raise ValueError(f"{name}: sparse keys need a combiner, got None")
    if isinstance(keys, tf.RaggedTensor):
        return keys[:, :max_length]
    keys = tf.convert_to_tensor(keys)
    if keys.shape.rank != 2:
        return keys
    return tf.RaggedTensor.from_tensor(keys[:, :max_length])
