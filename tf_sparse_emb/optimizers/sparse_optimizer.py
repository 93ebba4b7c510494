"""What the optimizers share: one step over tables, sparse and dense gradients."""

import re

import keras
import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.ops.embedding_grad_reduce import grad_reduce_by_key
from tf_sparse_emb.ops.embedding_key_dedup import split_by_table
from tf_sparse_emb.ops.embedding_update import check_finite, update_tables
from tf_sparse_emb.variable import EmbeddingVariable

_NOT_SAVED = (
    "the state of this optimizer cannot be saved yet: a part of it is in the rows of embedding tables, "
    "and would be lost"
)

# A variable named `embeddings`, as Keras' own Embedding names its weights.
ROW_WISE_VARIABLES = r"(^|/)embeddings$"


class _StateInTables(tf.train.experimental.PythonState):
    """Tells a `tf.train.Checkpoint` of the optimizer that it would be saved without the tables' part of its state."""

    def serialize(self):
        raise TypeError(_NOT_SAVED)

    def deserialize(self, string_value):
        raise TypeError(_NOT_SAVED)


class _Bound:
    """The variables an optimizer was built for, by Keras' variable key.

    A plain object: Keras would take variables in an optimizer's lists and dicts for the optimizer's own.
    """

    def __init__(self):
        self.variables = []
        self.tables = {}  # key -> EmbeddingVariable
        self.bindings = {}  # key -> the binding of that table
        self.slots = {}  # key of a plain variable -> {slot name: variable}
        self.row_wise = set()  # keys of the plain variables with row-wise state
        self.learning_rate = None  # of the step under way


class TableGroup:
    """Tables of one width that a step updates by one op; it stands where a variable would.

    Attributes:
        tables: list of T `tse.EmbeddingVariable`.
        shape: that of each, (0, D).
        table_splits: int64 [T + 1]: the unique keys of table t stand from table_splits[t] to table_splits[t + 1] - 1.
    """

    def __init__(self, tables, table_splits):
        self.tables, self.table_splits = tables, table_splits
        self.shape = tables[0].shape

    def split(self, values):
        """Returns values [U, ...] as a list of those of each table."""
        return split_by_table(values, self.table_splits, len(self.tables))


class SparseOptimizer(keras.optimizers.Optimizer):
    """Base of the optimizers: Keras optimizers which update embedding tables in place.

    One `apply_gradients` takes three kinds of variables:

    - a table (`tse.EmbeddingVariable`): `_resource_apply_sparse` calls `tse.ops.embedding_update`; the state is in the
      table's rows;
    - a plain variable with an `IndexedSlices` gradient: only the rows named change, in the variable and its state (a
      constraint, as in Keras, is applied to the whole variable);
    - a plain variable with a dense gradient.

    Repeated keys are summed first, then the rule is applied once. Gradients are clipped after that. All gradients are
    checked to be finite, before and after clipping, before any variable changes. Other errors of a table (`max_rows`)
    stop the step there; tables before it have been updated. Weight decay is decoupled and touches only rows of the
    batch.

    A subclass gives the rule: `rule`, `_hypers`, `_initial_values`, `_slot_initials` and `_step`.

    >>> isinstance(tse.optimizers.RowWiseAdam(), tse.optimizers.SparseOptimizer)
    True

    Args:
        learning_rate: float, `LearningRateSchedule` or callable.
        weight_decay: float or None (default).
        clipnorm, clipvalue, global_clipnorm: float or None; at most one. As in Keras, on the summed gradients.
        loss_scale_factor: float or None: gradients are divided by it.
        row_wise_variables: regular expression. A rule with row-wise state keeps it for the plain variables of rank 2 or
            more in whose path this is found; the others have element-wise state. Default: variables named `embeddings`.
        check_finite: bool, default True. Refuse gradients that are not finite.
        name: str or None.

    Raises:
        ValueError: for use_ema and gradient_accumulation_steps, which are not supported yet.
    """

    rule = None

    def __init__(
        self,
        learning_rate,
        *,
        weight_decay=None,
        row_wise_variables=ROW_WISE_VARIABLES,
        check_finite=True,
        name=None,
        **kwargs,
    ):
        for argument in ("use_ema", "gradient_accumulation_steps"):
            if kwargs.get(argument):
                raise ValueError(f"{type(self).__name__} does not support {argument} yet, got {kwargs[argument]!r}")
        try:
            re.compile(row_wise_variables)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"row_wise_variables must be a regular expression, got {row_wise_variables!r}: {error}"
            ) from None
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.row_wise_variables = row_wise_variables
        self.check_finite = check_finite
        self._bound = _Bound()

    def build(self, var_list):
        """Creates the state of plain variables and binds tables to the rule, which resets the tables' state."""
        if self.built:
            return
        var_list = list(var_list)
        tables = [variable for variable in var_list if isinstance(variable, EmbeddingVariable)]
        plain = [variable for variable in var_list if not isinstance(variable, EmbeddingVariable)]
        for variable in plain:
            if getattr(variable, "overwrite_with_gradient", False):
                raise ValueError(
                    f"{type(self).__name__} does not support variables that are overwritten with their gradient "
                    f"(float8 training), got '{_path(variable)}'"
                )
        # Tables first: binding them can fail, and the optimizer is not built then.
        bindings = [table.bind(self.rule, **self._initial_values()) for table in tables]
        super().build(plain)
        for variable in plain:
            self._add_slots(variable)
        for table, binding in zip(tables, bindings, strict=True):
            self._bound.tables[self._var_key(table)] = table
            self._bound.bindings[self._var_key(table)] = binding
        self._bound.variables = var_list
        if tables:
            self.table_state = _StateInTables()

    def _add_slots(self, variable):
        key = self._var_key(variable)
        path = _path(variable)
        row_wise = len(variable.shape) >= 2 and re.search(self.row_wise_variables, path) is not None
        if row_wise:
            self._bound.row_wise.add(key)
        self._bound.slots[key] = {
            name: self.add_variable(
                shape=variable.shape[:1] if per_row else variable.shape,
                initializer=keras.initializers.Constant(initial),
                dtype=variable.dtype,
                name=f"{path.replace('/', '_')}_{name}",
            )
            for name, (per_row, initial) in self._slot_initials(row_wise).items()
        }

    # From here on some methods that Keras' base class keeps private are used or overridden: there is no public way to
    # apply gradients of several kinds in one step.

    def _check_variables_are_known(self, variables):
        super()._check_variables_are_known([v for v in variables if self._var_key(v) not in self._bound.tables])

    def apply(self, grads, trainable_variables=None):
        """Updates variables with their gradients; see the class.

        Args:
            grads: list of tensors, `tf.IndexedSlices` or None, one for each variable.
            trainable_variables: list of variables; the first call builds the optimizer for them. None: those the
                optimizer was built for.

        Raises:
            ValueError: if there is not one gradient for each variable, or a variable is unknown.
            tf.errors.InvalidArgumentError: if a gradient is not finite; no variable has changed then.
        """
        grads = list(grads)
        if not grads:
            return
        variables = self._bound.variables if trainable_variables is None else list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(
                f"grads must match the variables one to one, got {len(grads)} gradients for {len(variables)} variables"
            )
        if not self.built:
            self.build(variables)
        self._check_variables_are_known(variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        with tf.name_scope(self.name):
            grads, targets = self._group_tables(grads, variables)
            grads = [self._unscale(grad) for grad in grads]
            checks = self._checks(grads, targets)
            clipped = self._clip_gradients(grads, targets)
            if clipped is not grads:  # a norm can overflow
                checks += self._checks(clipped, targets)
            with tf.control_dependencies(checks):
                self._update(clipped, targets)
                self._iterations.assign_add(1)

    def _group_tables(self, grads, variables):
        """Sums the gradients of repeated keys, and puts tables of one width together.

        Returns:
            A list of gradients, and one of what they are of: a `TableGroup` or a plain variable.
        """
        groups, plain = {}, []
        for grad, variable in zip(grads, variables, strict=True):
            if self._var_key(variable) not in self._bound.tables:
                plain.append((_sum_repeats(grad), variable))
                continue
            if not isinstance(grad, tf.IndexedSlices):
                raise TypeError(
                    f"the gradient of embedding table '{variable.path}' must be tf.IndexedSlices, got a dense tensor"
                )
            groups.setdefault((variable.dim, bool(self._decay(variable))), []).append((grad, variable))
        grouped = []
        for members in groups.values():
            keys, table_splits, values = grad_reduce_by_key(
                [tf.cast(grad.indices, tf.int64) for grad, _ in members],
                [tf.cast(grad.values, tf.float32) for grad, _ in members],
            )
            group = TableGroup([variable for _, variable in members], table_splits)
            grouped.append((tf.IndexedSlices(values, keys, members[0][0].dense_shape), group))
        return [list(column) for column in zip(*grouped, *plain, strict=True)]

    def _update(self, grads, targets):
        learning_rate = self.learning_rate
        plain = []
        for grad, target in zip(grads, targets, strict=True):
            if isinstance(target, TableGroup):
                self.update_step(grad, target.tables[0] if len(target.tables) == 1 else target, learning_rate)
            else:
                plain.append((grad, target))
        if not plain:
            return
        plain_grads, plain_variables = zip(*plain, strict=True)
        self._backend_update_step(list(plain_grads), list(plain_variables), learning_rate)
        for variable in plain_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable; the indices of an `IndexedSlices` gradient differ."""
        # TensorFlow's hooks take no learning rate. It is kept here, because a callable one may differ at every call.
        self._bound.learning_rate = learning_rate
        try:
            if isinstance(gradient, tf.IndexedSlices):
                return self._resource_apply_sparse(gradient.values, variable, gradient.indices)
            return self._resource_apply_dense(gradient, variable)
        finally:
            self._bound.learning_rate = None

    def _resource_apply_sparse(self, grad, var, indices):
        """Applies the rule to the rows of `indices`, which differ, as in TensorFlow's own hook of this name.

        `var` is a plain variable, a table, or a `TableGroup` of several, whose keys stand one after the other.
        """
        if isinstance(var, TableGroup) or self._var_key(var) in self._bound.tables:
            group = var if isinstance(var, TableGroup) else TableGroup([var], None)
            update = update_tables(
                group.tables,
                indices,
                group.table_splits,
                grad,
                self.rule,
                step=self.iterations + 1,
                bindings=[self._bound.bindings[self._var_key(table)] for table in group.tables],
                keys_differ=True,
                check_finite=False,
                learning_rate=self._rate(),
                weight_decay=self._decay(group.tables[0]),
                **self._hypers(),
            )
            with tf.control_dependencies([] if update is None else [update]):
                for table, keys in zip(group.tables, group.split(indices), strict=True):
                    _constrain(table, keys)
            return update
        # ResourceGather and ResourceScatterUpdate touch the rows named and nothing else.
        slots = self._bound.slots[self._var_key(var)]
        rows = _gather(var, indices)
        slot_rows = {name: _gather(slot.value, indices) for name, slot in slots.items()}
        rows, slot_rows = self._apply_rule(var, rows, tf.cast(grad, var.dtype), slot_rows)
        for name, slot in slots.items():
            _scatter_update(slot.value, indices, slot_rows[name])
        return _scatter_update(var, indices, rows)

    def _resource_apply_dense(self, grad, var):
        """Applies the rule to the whole variable."""
        slots = self._bound.slots[self._var_key(var)]
        values = {name: tf.convert_to_tensor(slot.value) for name, slot in slots.items()}
        new_value, values = self._apply_rule(var, tf.convert_to_tensor(var), tf.cast(grad, var.dtype), values)
        for name, slot in slots.items():
            self.assign(slot, values[name])
        self.assign(var, new_value)

    def _apply_rule(self, variable, rows, grads, slots):
        """Returns the new rows [U, ...] and slots of a plain variable."""
        dtype = rows.dtype
        if dtype.size < 4:  # half types cannot hold epsilon
            rows, grads = tf.cast(rows, tf.float32), tf.cast(grads, tf.float32)
            slots = {name: tf.cast(slot, tf.float32) for name, slot in slots.items()}
        row_wise = self._var_key(variable) in self._bound.row_wise
        learning_rate = tf.cast(self._rate(), rows.dtype)
        delta, slots = self._step(grads, slots, learning_rate, row_wise)
        decay = self._decay(variable)
        if decay:
            rows = rows * (1.0 - learning_rate * tf.cast(decay, rows.dtype))
        return tf.cast(rows - delta, dtype), {name: tf.cast(slot, dtype) for name, slot in slots.items()}

    def _rate(self):
        return self.learning_rate if self._bound.learning_rate is None else self._bound.learning_rate

    def _decay(self, variable):
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def _unscale(self, grad):
        if self.loss_scale_factor is None:
            return grad
        return _map_values(lambda values: values / self.loss_scale_factor, grad)

    def _clip_gradients(self, grads, targets):
        if self.clipnorm and self.clipnorm > 0:
            return [
                _map_values(lambda values, target=target: self._clip_norms(values, target), grad)
                for grad, target in zip(grads, targets, strict=True)
            ]
        if self.clipvalue and self.clipvalue > 0:
            clip = self.clipvalue
            return [_map_values(lambda values: tf.clip_by_value(values, -clip, clip), grad) for grad in grads]
        if self.global_clipnorm and self.global_clipnorm > 0:
            return tf.clip_by_global_norm(grads, self.global_clipnorm)[0]
        return grads

    def _clip_norms(self, values, target):
        """Clips the norm of each variable's gradient, each table's of a group."""
        parts = target.split(values) if isinstance(target, TableGroup) else [values]
        parts = [tf.clip_by_norm(part, self.clipnorm) for part in parts]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 0)

    def _checks(self, grads, targets):
        """Ops that fail unless all gradients are finite; in eager mode they have failed by now."""
        if not self.check_finite:
            return []
        checks = []
        for grad, target in zip(grads, targets, strict=True):
            if isinstance(target, TableGroup):
                names = [_path(table) for table in target.tables]
                checks.append(check_finite(grad.indices, target.table_splits, grad.values, names))
            else:
                values = grad.values if isinstance(grad, tf.IndexedSlices) else grad
                message = f"the gradient of variable '{_path(target)}' is not finite"
                checks.append(tf.debugging.assert_all_finite(values, message))
        return [check for check in checks if check is not None]

    def _hypers(self):
        """The rule's hyper-parameters for tables, but for the learning rate and the weight decay."""
        return {}

    def _initial_values(self):
        """The arguments of `EmbeddingVariable.bind`."""
        return {}

    def _slot_initials(self, row_wise):
        """Returns {slot name: (one value a row instead of one an element, initial value)} for plain variables."""
        return {}

    def _step(self, grads, slots, learning_rate, row_wise):
        """The rule on a plain variable: returns what to subtract from the rows, and the new slots."""
        raise NotImplementedError

    def save_own_variables(self, store):
        """Raises while tables hold a part of the state: saving them is not supported yet."""
        if self._bound.tables:
            raise TypeError(_NOT_SAVED)
        super().save_own_variables(store)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "row_wise_variables": self.row_wise_variables,
            "check_finite": self.check_finite,
        }


def mean_square_of_rows(grads):
    """mean_d(g^2) of grads [U, ...]: [U]."""
    return tf.reduce_mean(tf.square(grads), axis=list(range(1, grads.shape.rank)))


def per_row(values, grads):
    """Reshapes values [U] so that they multiply grads [U, ...] row by row."""
    return tf.reshape(values, [-1] + [1] * (grads.shape.rank - 1))


def _path(variable):
    return getattr(variable, "path", None) or variable.name.split(":")[0]


def _as_rows(values):
    """[U, ...] as [U, D]."""
    return tf.reshape(values, [tf.shape(values)[0], tf.reduce_prod(tf.shape(values)[1:])])


def _map_values(fn, grad):
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(fn(grad.values), grad.indices, grad.dense_shape)
    return fn(grad)


def _sum_repeats(grad):
    """Sums the rows of repeated indices, in order of occurrence; other gradients pass."""
    if not isinstance(grad, tf.IndexedSlices):
        return grad
    unique, inverse, _ = ops.embedding_key_dedup(grad.indices)
    if grad.dtype in (tf.float32, tf.float16, tf.bfloat16):
        rows = _as_rows(tf.cast(grad.values, tf.float32))
        summed = ops.embedding_grad_reduce(rows, inverse=inverse, num_unique=tf.size(unique))
        shape = tf.concat([tf.shape(unique), tf.shape(grad.values)[1:]], 0)
        summed = tf.ensure_shape(tf.reshape(summed, shape), [None, *grad.values.shape[1:]])
    else:
        summed = tf.math.unsorted_segment_sum(grad.values, inverse, tf.size(unique))
    return tf.IndexedSlices(summed, unique, grad.dense_shape)


def _constrain(table, keys):
    """Applies a table's constraint to the rows of keys, but for the padding key's."""
    if table.constraint is None:
        return
    if table.padding_key is not None:
        keys = tf.boolean_mask(keys, keys != table.padding_key)
    table.upsert(keys, table.constraint(table.read_rows(keys)))


def _gather(variable, indices):
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=indices, dtype=variable.dtype)


def _scatter_update(variable, indices, rows):
    return tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=indices, updates=rows)
