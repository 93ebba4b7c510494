"""What an export is called with: the specs of a model's inputs as tensors with names."""

import contextlib
from typing import NamedTuple

import keras
import tensorflow as tf


class InputSpec(NamedTuple):
    """A tensor that a model takes: its name in signatures and its `tf.TypeSpec`."""

    name: str
    spec: tf.TypeSpec


def input_specs(model, input_signature):
    """Returns the positional arguments of a model's call, a list of structures of `InputSpec`.

    Args:
        model: Keras model or layer.
        input_signature: None (those of a Functional or Sequential model), a list of the positional arguments, or the
            only argument; of `tf.TypeSpec`, `keras.InputSpec`, `keras.KerasTensor`, arrays or tensors.

    Raises:
        ValueError: if there are none.
        TypeError: if they are something else.
    """
    if input_signature is None:
        input_signature = _symbolic_inputs(model)
    if not isinstance(input_signature, (list, tuple)):
        input_signature = [input_signature]
    return [
        _named("inputs" if position == 0 else f"inputs_{position}", argument)
        for position, argument in enumerate(input_signature)
    ]


def _symbolic_inputs(model):
    with contextlib.suppress(AttributeError, ValueError):
        return [model.input]  # Functional: in the structure that it takes
    with contextlib.suppress(AttributeError, ValueError):
        return list(model.inputs)  # Sequential
    raise ValueError(
        f"input_signature is needed for '{model.name}', which is no Functional or Sequential model of known inputs: "
        "give specs such as [tf.TensorSpec([None, 3], tf.int64, name='items')]"
    )


def type_specs(arguments):
    """The `tf.TypeSpec`s of structures of `InputSpec`, tensors bearing their names."""
    return [
        _map(
            lambda item: (
                tf.TensorSpec(item.spec.shape, item.spec.dtype, item.name)
                if isinstance(item.spec, tf.TensorSpec)
                else item.spec
            ),
            argument,
        )
        for argument in arguments
    ]


def flat_function(function, arguments):
    """`function` as one of plain tensors, and their specs: what a signature takes.

    A ragged tensor x comes as x (its values) and x_row_splits (x_row_splits_0, ... of the outermost axis first, if
    there are several), a sparse one as x (its values), x_indices and x_dense_shape; so do those that are returned.
    Outputs are called by the keys of a dict, else output_0, output_1 ...
    """
    items = [item for argument in arguments for item in _flatten(argument)]
    parts = [_parts(item) for item in items]
    sizes = [len(part) for part in parts]

    def flat(*tensors):
        tensors, values = list(tensors), []
        for item, size in zip(items, sizes, strict=True):
            values.append(_together(item.spec, tensors[:size]))
            del tensors[:size]
        return _flat_outputs(function(*[_fill(argument, values) for argument in arguments]))

    return flat, [spec for part in parts for spec in part]


def _parts(item):
    name, spec = item
    if isinstance(spec, tf.RaggedTensorSpec):
        return [
            tf.TensorSpec([None, *spec.shape[spec.ragged_rank + 1 :]], spec.dtype, name),
            *(tf.TensorSpec([None], spec.row_splits_dtype, part) for part in _split_names(name, spec.ragged_rank)),
        ]
    if isinstance(spec, tf.SparseTensorSpec):
        rank = spec.shape.rank
        return [
            tf.TensorSpec([None], spec.dtype, name),
            tf.TensorSpec([None, rank], tf.int64, f"{name}_indices"),
            tf.TensorSpec([rank], tf.int64, f"{name}_dense_shape"),
        ]
    return [tf.TensorSpec(spec.shape, spec.dtype, name)]


def _split_names(name, ragged_rank):
    return [f"{name}_row_splits{f'_{axis}' if ragged_rank > 1 else ''}" for axis in range(ragged_rank)]


def _flat_outputs(outputs):
    has_names = isinstance(outputs, dict) and not any(isinstance(x, (dict, list, tuple)) for x in outputs.values())
    named = outputs.items() if has_names else ((f"output_{i}", x) for i, x in enumerate(tf.nest.flatten(outputs)))
    flat = {}
    for name, value in named:
        if isinstance(value, tf.RaggedTensor):
            splits = value.nested_row_splits
            flat[name] = value.flat_values
            flat.update(zip(_split_names(name, len(splits)), splits, strict=True))
        elif isinstance(value, tf.SparseTensor):
            flat |= {name: value.values, f"{name}_indices": value.indices, f"{name}_dense_shape": value.dense_shape}
        else:
            flat[name] = value
    return flat


def _together(spec, tensors):
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensor.from_nested_row_splits(tensors[0], tensors[1:])
    if isinstance(spec, tf.SparseTensorSpec):
        values, indices, dense_shape = tensors
        keys = tf.SparseTensor(indices, values, dense_shape)
        keys.set_shape(spec.shape)
        return keys
    return tensors[0]


def _named(name, value):
    if isinstance(value, dict):
        return {key: _named(str(key), part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(name if i == 0 else f"{name}_{i}", part) for i, part in enumerate(value)]
    if isinstance(value, (keras.KerasTensor, keras.InputSpec, tf.TensorSpec)):
        name = value.name or name
    return InputSpec(name, _type_spec(value))


def _type_spec(value):
    if isinstance(value, (tf.TensorSpec, tf.RaggedTensorSpec, tf.SparseTensorSpec)):
        return value
    if isinstance(value, keras.InputSpec):
        if value.shape is None or value.dtype is None:
            raise ValueError(f"an InputSpec of input_signature must have a shape and a dtype, got {value}")
        return tf.TensorSpec(value.shape, value.dtype)
    if isinstance(value, tf.RaggedTensor):
        return tf.RaggedTensorSpec([None, *value.shape[1:]], value.dtype, value.ragged_rank, value.row_splits.dtype)
    if isinstance(value, tf.SparseTensor):
        return tf.SparseTensorSpec([None] * value.shape.rank, value.dtype)
    if isinstance(value, keras.KerasTensor):
        if getattr(value, "sparse", False):
            return tf.SparseTensorSpec(value.shape, value.dtype)
        if getattr(value, "ragged", False):
            return tf.RaggedTensorSpec(value.shape, value.dtype, value.ragged_rank or len(value.shape) - 1)
        return tf.TensorSpec(value.shape, value.dtype)
    if not hasattr(value, "shape"):
        raise TypeError(
            "input_signature must be made of tf.TypeSpec, keras.InputSpec, keras.KerasTensor, arrays or tensors, got "
            f"{value!r}"
        )
    value = tf.convert_to_tensor(value)
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def _map(function, structure):
    if isinstance(structure, InputSpec):
        return function(structure)
    if isinstance(structure, dict):
        return {name: _map(function, part) for name, part in structure.items()}
    return [_map(function, part) for part in structure]


def _flatten(structure):
    items = []
    _map(items.append, structure)
    return items


def _fill(structure, values):
    """The structure with the first of `values`, which are taken out of the list."""
    return _map(lambda item: values.pop(0), structure)
