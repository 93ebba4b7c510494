"""What the optimizers share: one step over tables, sparse and dense gradients."""

import keras
import tensorflow as tf

from tf_sparse_emb.data_parallel import check_agreement, check_trainable, data_parallel_strategy
from tf_sparse_emb.ops.embedding_grad_reduce import grad_reduce_by_key
from tf_sparse_emb.ops.embedding_lookup import whole_lookup
from tf_sparse_emb.optimizers.bound import Bound
from tf_sparse_emb.optimizers.checks import check_no_loss_scale, check_not_negative, check_positive, optimizer_of
from tf_sparse_emb.optimizers.gradient_limits import clip, finite_checks, unscale
from tf_sparse_emb.optimizers.gradients import path_of, sum_repeats
from tf_sparse_emb.optimizers.loading import LoadsBeforeBuild
from tf_sparse_emb.optimizers.overrides import Overrides
from tf_sparse_emb.optimizers.replica_sum import build_once, sum_over_replicas
from tf_sparse_emb.optimizers.rule import ROW_WISE_VARIABLES, Rule, check_pattern
from tf_sparse_emb.optimizers.step_count import count_in_place
from tf_sparse_emb.optimizers.table_group import TableGroup
from tf_sparse_emb.table_arguments import check_flag
from tf_sparse_emb.variable import EmbeddingVariable


class SparseOptimizer(Rule, LoadsBeforeBuild, keras.optimizers.Optimizer):
    """Base of the optimizers: Keras optimizers which update embedding tables in place.

    One `apply_gradients` takes three kinds of variables:

    - a table (`tse.EmbeddingVariable`): `_resource_apply_sparse` calls `tse.ops.embedding_update`; the state is in the
      table's rows;
    - a plain variable with an `IndexedSlices` gradient: only the rows named change, in the variable and its state (a
      constraint, as in Keras, is applied to the whole variable);
    - a plain variable with a dense gradient.

    Repeated keys are summed first, then divided by the loss scale, clipped, and the rule is applied once. All gradients
    are checked to be finite, before and after clipping, before any variable changes; a pass over the
    gradients costs 1 to 4 % of a step's processor time (`benchmarks/check_finite.py`).

    A finite gradient beyond 1.8e19, whose square overflows float32, is not refused: where the rule squares it, it makes
    the state of its own row infinite, as in Keras, and harms no other row. Other errors of a table (`max_rows`) stop a
    step in its midst: other variables may have been updated. Weight decay is decoupled and touches only rows of the
    batch.

    A subclass gives the rule: `rule`, `_hypers`, `_initial_values`, `_slot_initials` and `_step`.

    The dense part can have an optimizer of its own (`dense_optimizer`), and so can a table (`overrides`):

    >>> optimizer = tse.optimizers.RowWiseAdam(
    ...     0.001,
    ...     dense_optimizer=keras.optimizers.Adam(0.0003),
    ...     overrides={"user": 0.01, "country": tse.optimizers.SGD(0.1)},
    ... )

    >>> isinstance(tse.optimizers.RowWiseAdam(), tse.optimizers.SparseOptimizer)
    True

    Args:
        learning_rate: float, `LearningRateSchedule` or callable (called once a step). A float can be assigned to
            `optimizer.learning_rate` later, and holds from the next step.
        weight_decay: float >= 0 or None (default): each step multiplies the rows that it names by 1 - lr wd.
            `exclude_from_weight_decay` takes tables and names, as in Keras.
        clipnorm, clipvalue, global_clipnorm: float > 0 or None (default); at most one. As in Keras, on the summed
            gradients: clipnorm bounds the norm of each table's, clipvalue each element, global_clipnorm the norm of all
            variables' together.
        loss_scale_factor: float > 0 or None (default): `scale_loss`, which `fit` calls, multiplies the loss by it, and
            gradients are divided by it.
        row_wise_variables: regular expression. A rule with row-wise state keeps it for the plain variables of rank 2 or
            more in whose path this is found; the others have element-wise state. Default: variables named `embeddings`.
        check_finite: bool, default True. Refuse gradients that are not finite.
        dense_optimizer: Keras optimizer or None (default). It updates the plain variables that are not row-wise
            variables, with gradients that have been clipped here and are clipped by its own arguments too. Its other
            arguments hold for its variables, use_ema and gradient_accumulation_steps included, but for
            loss_scale_factor, which must be given here.
        overrides: dict or None (default): table, layer with one table, or regular expression to be found in a
            variable's path -> learning rate (float or `LearningRateSchedule`), or an optimizer of `tse.optimizers`,
            which then updates that variable. The first that matches holds. A regular expression that matches none of
            the variables is a warning at build.
        use_ema, ema_momentum, ema_overwrite_frequency, gradient_accumulation_steps: as in Keras, for models without
            tables, overrides and dense_optimizer; with them `build` raises, because averaging or accumulating would
            touch every row of a table at every step. Evaluate on a snapshot (`get_weights`) of a low learning rate
            instead of an average, and take larger batches instead of accumulating.
        name: str or None.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        learning_rate,
        *,
        weight_decay=None,
        row_wise_variables=ROW_WISE_VARIABLES,
        check_finite=True,
        dense_optimizer=None,
        overrides=None,
        name=None,
        **kwargs,
    ):
        check_pattern("row_wise_variables", row_wise_variables)
        check_flag("check_finite", check_finite)
        check_not_negative("weight_decay", weight_decay, or_none=True)
        for argument in ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"):
            check_positive(argument, kwargs.get(argument), or_none=True)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.row_wise_variables = row_wise_variables
        self.check_finite = check_finite
        self.dense_optimizer = optimizer_of("dense_optimizer", dense_optimizer)
        self.overrides = Overrides(overrides)
        self._override_optimizers = self.overrides.optimizers
        check_no_loss_scale("dense_optimizer", self.dense_optimizer)
        for optimizer in self._override_optimizers:
            check_no_loss_scale("an optimizer in overrides", optimizer)
        self._bound = Bound()

    def build(self, var_list):
        """Creates the state of plain variables and binds tables to the rule.

        Binding resets the tables' state, unless it was loaded while they had no optimizer, and is of this rule.
        """
        if self.built:
            return
        var_list = list(var_list)
        self.overrides.warn_of_unused(var_list)
        own, others = self._assign(var_list)
        tables = [variable for variable in own if isinstance(variable, EmbeddingVariable)]
        plain = [variable for variable in own if not isinstance(variable, EmbeddingVariable)]
        if tables or others:
            for argument in ("use_ema", "gradient_accumulation_steps"):
                if getattr(self, argument):
                    raise ValueError(
                        f"{argument} would touch every row of a table at every step, and is not supported for models "
                        "with tables, nor with overrides or dense_optimizer. "
                        + (
                            "Lower the learning rate towards the end instead of averaging"
                            if argument == "use_ema"
                            else "Take larger batches instead of accumulating"
                        )
                    )
        for variable in plain:
            if getattr(variable, "overwrite_with_gradient", False):
                raise ValueError(
                    f"{type(self).__name__} does not support variables that are overwritten with their gradient "
                    f"(float8 training), got '{path_of(variable)}'"
                )
        strategy = data_parallel_strategy()
        if strategy is not None:
            self._check_data_parallel(strategy, tables, others)
        # Tables first: binding them can fail, and the optimizer is not built then.
        bindings = [table.bind(self.rule, **self._initial_values()) for table in tables]
        for optimizer, variables in others:
            optimizer.build(variables)
            count_in_place(optimizer)
        super().build(plain)
        for variable in plain:
            self._add_slots(variable)
        for table, binding in zip(tables, bindings, strict=True):
            self._bound.tables[self._var_key(table)] = table
            self._bound.bindings[self._var_key(table)] = binding
        self._bound.variables = var_list
        self._bound.others = others
        self._take_loaded()
        if strategy is not None:
            check_agreement(strategy, tables)

    def _check_data_parallel(self, strategy, tables, others):
        """Raises a ValueError if something would differ from one process that has the whole batch."""
        check_trainable(strategy, tables, [path_of(table) for table in tables])
        for argument in ("use_ema", "gradient_accumulation_steps"):
            if getattr(self, argument):
                raise ValueError(f"{argument} is not supported with several replicas ({type(strategy).__name__})")
        for optimizer, _ in others:
            if not isinstance(optimizer, SparseOptimizer):
                raise ValueError(
                    "dense_optimizer and the optimizers of overrides must be of tse.optimizers, such as "
                    f"tse.optimizers.Adam, with several replicas ({type(strategy).__name__}), got "
                    f"{type(optimizer).__name__}"
                )

    def _assign(self, variables):
        """Returns this optimizer's own variables, and a list of (other optimizer, its variables)."""
        own, others = [], {}
        for variable in variables:
            override = self.overrides.of(variable)
            owner = override if isinstance(override, keras.optimizers.Optimizer) else None
            if override is None and self.dense_optimizer is not None:
                is_dense = not isinstance(variable, EmbeddingVariable) and not self._is_row_wise(variable)
                owner = self.dense_optimizer if is_dense else None
            if owner is None:
                own.append(variable)
                if override is not None:
                    self._bound.rates[self._var_key(variable)] = override
            else:
                others.setdefault(id(owner), (owner, []))[1].append(variable)
                self._bound.owners[self._var_key(variable)] = owner
        return own, list(others.values())

    def _add_slots(self, variable):
        key = self._var_key(variable)
        path = path_of(variable)
        row_wise = self._is_row_wise(variable)
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
        elsewhere = self._bound.tables.keys() | self._bound.owners.keys()
        super()._check_variables_are_known([v for v in variables if self._var_key(v) not in elsewhere])

    def _apply_weight_decay(self, variables):
        """Nothing: the rules decay the rows that they update."""

    def finalize_variable_values(self, var_list):
        """Ends the training: averages (`use_ema`) replace the variables, also those of other optimizers."""
        super().finalize_variable_values(var_list)
        for optimizer, variables in self._bound.others:
            optimizer.finalize_variable_values(variables)

    def apply(self, grads, trainable_variables=None):
        """Updates variables with their gradients; see the class.

        Args:
            grads: list of tensors, `tf.IndexedSlices` or None, one for each variable.
            trainable_variables: list of variables; the first call builds the optimizer for them. None: those the
                optimizer was built for.

        Raises:
            ValueError: if there is not one gradient for each variable, or a variable is unknown; under a strategy of
                several replicas, if this is not called by each of them, in `strategy.run`.
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
        strategy = data_parallel_strategy()
        if strategy is not None and tf.distribute.in_cross_replica_context():
            raise ValueError(f"apply must be called by each replica, in strategy.run ({type(strategy).__name__})")
        if not self.built and strategy is not None:
            build_once(self, variables)
        elif not self.built:
            self.build(variables)
        self._check_variables_are_known(variables)
        if self.use_ema or self.gradient_accumulation_steps:
            return super().apply(grads, variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        if strategy is None:
            self._apply_summed(grads, variables)
        else:
            sum_over_replicas(*self._group_tables(grads, variables), self._apply_summed)

    def _apply_summed(self, grads, variables):
        """Updates variables with gradients that are summed over all replicas, once in a process."""
        with tf.name_scope(self.name):
            grads, targets = self._group_tables(grads, variables)
            grads = unscale(grads, self.loss_scale_factor)
            checks = finite_checks(grads, targets) if self.check_finite else []
            clipped = self._clip_gradients(grads, targets)
            if self.check_finite and clipped is not grads:  # a norm can overflow
                checks += finite_checks(clipped, targets)
            with tf.control_dependencies(checks):
                self._update(clipped, targets)
                self._iterations.value.assign_add(1)  # see count_in_place

    def _group_tables(self, grads, variables):
        """Sums the gradients of repeated keys, and puts tables together that one op can update.

        Returns:
            A list of gradients, and one of what they are of: a `TableGroup` or a plain variable.
        """
        groups, plain = {}, []
        for grad, variable in zip(grads, variables, strict=True):
            if not isinstance(variable, EmbeddingVariable):
                plain.append((sum_repeats(grad), variable))
                continue
            if not isinstance(grad, tf.IndexedSlices):
                raise TypeError(
                    f"the gradient of embedding table '{variable.path}' must be tf.IndexedSlices, got a dense tensor"
                )
            key = self._var_key(variable)
            owner, rate = self._bound.owners.get(key), self._bound.rates.get(key)
            group = (variable.dim, variable.servers, bool(self._decay(variable)), id(owner), id(rate))
            groups.setdefault(group, []).append((grad, variable))
        grouped = []
        for members in groups.values():
            keys, table_splits, values = whole_lookup([grad for grad, _ in members]) or grad_reduce_by_key(
                [tf.cast(grad.indices, tf.int64) for grad, _ in members],
                [tf.cast(grad.values, tf.float32) for grad, _ in members],
            )
            group = TableGroup([variable for _, variable in members], table_splits)
            grouped.append((tf.IndexedSlices(values, keys, members[0][0].dense_shape), group))
        return [list(column) for column in zip(*grouped, *plain, strict=True)]

    def _update(self, grads, targets):
        strategy = data_parallel_strategy()
        learning_rate = self.learning_rate  # once: a callable one may differ at every call
        plain, others = {}, {}
        for grad, target in zip(grads, targets, strict=True):
            is_group = isinstance(target, TableGroup)
            key = self._var_key(target.tables[0] if is_group else target)
            owner = self._bound.owners.get(key)
            if owner is not None:
                pairs = zip(target.split_gradient(grad), target.tables, strict=True) if is_group else [(grad, target)]
                others.setdefault(id(owner), (owner, []))[1].extend(pairs)
            elif is_group:
                rate = self._rate_of(key, learning_rate)
                self.update_step(grad, target.tables[0] if len(target.tables) == 1 else target, rate)
            else:
                plain.setdefault(id(self._bound.rates.get(key)), []).append((grad, target))
        for pairs in plain.values():
            plain_grads, variables = (list(column) for column in zip(*pairs, strict=True))
            rate = self._rate_of(self._var_key(variables[0]), learning_rate)
            if strategy is None:
                self._backend_update_step(plain_grads, variables, rate)
            else:
                pairs = [(grad, variable.value) for grad, variable in zip(plain_grads, variables, strict=True)]
                self._distributed_tf_update_step(strategy, pairs, rate)
            for variable in variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
        for owner, pairs in others.values():
            apply = owner.apply if strategy is None else owner._apply_summed
            apply(*(list(column) for column in zip(*pairs, strict=True)))

    def _rate_of(self, key, learning_rate):
        """The learning rate of a variable in this step, that of the optimizer being `learning_rate`."""
        rate = self._bound.rates.get(key)
        if rate is None:
            return learning_rate
        return tf.convert_to_tensor(rate(self.iterations) if callable(rate) else rate, tf.float32)

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
            bindings = [self._bound.bindings[self._var_key(table)] for table in group.tables]
            decay = self._decay(group.tables[0])
            return self._update_tables(group, indices, grad, bindings, self._rate(), decay)
        return self._update_rows(var, indices, grad, *self._plain_state(var))

    def _resource_apply_dense(self, grad, var):
        """Applies the rule to the whole variable."""
        own = var.value if isinstance(var, keras.Variable) else var  # of Keras in a call by hand
        return self._update_whole(own, grad, *self._plain_state(var))

    def _plain_state(self, var):
        """The slots, learning rate, weight decay and row-wiseness of a plain variable."""
        key = self._var_key(var)
        slots = {name: slot.value for name, slot in self._bound.slots[key].items()}
        return slots, self._rate(), self._decay(var), key in self._bound.row_wise

    def _rate(self):
        return self.learning_rate if self._bound.learning_rate is None else self._bound.learning_rate

    def _decay(self, variable):
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def _clip_gradients(self, grads, targets=None):
        targets = [None] * len(grads) if targets is None else targets
        return clip(grads, targets, self.clipnorm, self.clipvalue, self.global_clipnorm)

    def __dir__(self):
        """All names but `get_slot_names`.

        By that name tf.train.Checkpoint knows an optimizer of TF 1, whose slots nobody else owns; one of Keras owns
        its own, and could not be saved.
        """
        return [name for name in super().__dir__() if name != "get_slot_names"]

    def get_slot(self, var, name):
        """Returns a slot of a variable: a variable, or for a table a `TableSlot`, whose `lookup(keys)` reads rows.

        Args:
            var: a variable that the optimizer was built for.
            name: str, one of `get_slot_names()`.

        Raises:
            ValueError: if the variable or the name is unknown.
        """
        key = self._var_key(var)
        owner = self._bound.owners.get(key)
        if isinstance(owner, SparseOptimizer):
            return owner.get_slot(var, name)
        if name not in self.get_slot_names():
            raise ValueError(f"name must be one of {', '.join(self.get_slot_names()) or 'none'}, got {name!r}")
        if key in self._bound.tables:
            return self._table_slot(var, name)
        if key not in self._bound.slots:
            raise ValueError(f"{type(self).__name__} was not built for variable '{path_of(var)}'")
        return self._bound.slots[key][name]

    def compute_gradients(self, loss, var_list, tape=None):
        """Returns a list of (gradient, variable).

        Args:
            loss: a callable without arguments that returns it, or, with the tape that has recorded it, a tensor.
            var_list: list of variables, or a callable that returns it.
            tape: `tf.GradientTape` or None.

        Raises:
            ValueError: if loss is a tensor and there is no tape.
        """
        if not callable(loss) and tape is None:
            raise ValueError("a loss that is a tensor needs the tf.GradientTape that has recorded it, got tape=None")
        if callable(loss):
            with tf.GradientTape() if tape is None else tape as tape:
                loss = loss()
        var_list = list(var_list() if callable(var_list) else var_list)
        sources = [variable.value if isinstance(variable, keras.Variable) else variable for variable in var_list]
        return list(zip(tape.gradient(loss, sources), var_list, strict=True))

    def minimize(self, loss, var_list, tape=None):
        """Computes the gradients of the loss and applies them: `compute_gradients`, then `apply_gradients`."""
        return self.apply_gradients(self.compute_gradients(loss, var_list, tape))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "row_wise_variables": self.row_wise_variables,
            "check_finite": self.check_finite,
            "dense_optimizer": self.dense_optimizer and keras.saving.serialize_keras_object(self.dense_optimizer),
            "overrides": self.overrides.get_config(),
        }
