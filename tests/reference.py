"""Slow NumPy twins of the ops and of the update rules, in float64, and the axes that the tests share.

Letters: N keys, U unique keys, D dim, B bags, V rows. Each twin has the arguments of the fast path that it checks.
"""

import numpy as np

INT64_MIN = np.iinfo(np.int64).min
INT64_MAX = np.iinfo(np.int64).max
EXTREME_KEYS = np.array([INT64_MIN, INT64_MAX, 0, -1], np.int64)

HASH_STORAGES = ("unordered_map", "open_addressing", "chained", "slab")
STORAGES = (*HASH_STORAGES, "index")
WIDTHS = (1, 3, 17, 64)
COMBINERS = ("sum", "mean", "sqrtn")
RULES = ("sgd", "row_wise_adagrad", "row_wise_adam")


def key_universe(storage, count, seed=0):
    """`count` distinct keys that a table of `storage` takes: 0 .. count - 1 on "index", else any int64."""
    if storage == "index":
        return np.arange(count, dtype=np.int64)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(INT64_MIN, INT64_MAX, size=2 * count, dtype=np.int64, endpoint=True)
    small = np.arange(-8, 8, dtype=np.int64)
    keys = np.unique(np.concatenate([drawn, small]))
    keys = np.setdiff1d(keys, EXTREME_KEYS)
    return rng.permutation(np.concatenate([EXTREME_KEYS, rng.permutation(keys)[: count - EXTREME_KEYS.size]]))


def key_dedup(keys):
    """unique_keys in order of first occurrence, inverse [N], counts [U]."""
    index_of, inverse, counts = {}, [], []
    for key in np.asarray(keys).tolist():
        u = index_of.setdefault(key, len(index_of))
        if u == len(counts):
            counts.append(0)
        counts[u] += 1
        inverse.append(u)
    return np.array(list(index_of), np.int64), np.array(inverse, np.int32), np.array(counts, np.int32)


def server_of_key(keys, num_servers):
    """The parameter server of each key: a hash of it, the finaliser of splitmix64."""
    x = keys.astype(np.uint64) ^ np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(32)) * np.uint64(num_servers) >> np.uint64(32)).astype(np.int64)


def bag_coefficients(row_splits, weights, combiner):
    """c [N] such that the pooled row of bag b is the sum of c_n x_n over its keys n; 0/0 = 0."""
    w = np.asarray(weights, np.float64)
    c = np.zeros_like(w)
    for begin, end in zip(row_splits[:-1], row_splits[1:], strict=True):
        bag = w[begin:end]
        divisor = {"sum": 1.0, "mean": bag.sum(), "sqrtn": np.sqrt((bag**2).sum())}[combiner]
        c[begin:end] = bag / divisor if divisor else 0.0
    return c


def duplicate(rows, inverse, row_splits=None, weights=None, combiner=None):
    """The gather [N, D], or the pooled rows [B, D]."""
    values = np.asarray(rows, np.float64)[np.asarray(inverse, np.int64)]
    if combiner is None:
        return values
    c = bag_coefficients(row_splits, np.ones(len(inverse)) if weights is None else weights, combiner)
    pooled = np.zeros((len(row_splits) - 1, values.shape[1]))
    for b, (begin, end) in enumerate(zip(row_splits[:-1], row_splits[1:], strict=True)):
        for n in range(begin, end):
            pooled[b] += c[n] * values[n]
    return pooled


def grad_reduce(grad, inverse, num_unique, row_splits=None, weights=None, combiner=None):
    """The gradient summed per unique key [U, D]: the transpose of `duplicate`."""
    grad = np.asarray(grad, np.float64)
    if combiner is None:
        grad_nxd = grad
    else:
        c = bag_coefficients(row_splits, np.ones(len(inverse)) if weights is None else weights, combiner)
        bag_of = np.repeat(np.arange(len(row_splits) - 1), np.diff(row_splits))
        grad_nxd = grad[bag_of] * c[:, None]
    grad_uxd = np.zeros((num_unique, grad.shape[1]))
    for n, u in enumerate(inverse):
        grad_uxd[u] += grad_nxd[n]
    return grad_uxd


def reduce_by_key(keys, grads):
    """(unique keys in order of first occurrence, float32 sums taken in order of occurrence)."""
    unique_keys, inverse, _ = key_dedup(keys)
    sums = np.zeros((unique_keys.size, np.asarray(grads).shape[1]), np.float32)
    np.add.at(sums, inverse, np.asarray(grads, np.float32))
    return unique_keys, sums


# Update rules: rows [U, D], state [U, S], grads [U, D] -> the new rows and the new state. `step` is 1-based.


def sgd(rows, state, grads, step, *, learning_rate, weight_decay=0.0):
    return rows - learning_rate * grads - learning_rate * weight_decay * rows, state


def row_wise_adagrad(rows, state, grads, step, *, learning_rate, epsilon=1e-8, weight_decay=0.0):
    a = state + np.mean(grads**2, axis=1, keepdims=True)
    delta = learning_rate * grads / (np.sqrt(a) + epsilon)
    return rows - delta - learning_rate * weight_decay * rows, a


def row_wise_adam(rows, state, grads, step, *, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0):
    dim = rows.shape[1]
    m = beta_1 * state[:, :dim] + (1 - beta_1) * grads
    v = beta_2 * state[:, dim:] + (1 - beta_2) * np.mean(grads**2, axis=1, keepdims=True)
    delta = learning_rate * (m / (1 - beta_1**step)) / (np.sqrt(v / (1 - beta_2**step)) + epsilon)
    return rows - delta - learning_rate * weight_decay * rows, np.concatenate([m, v], axis=1)


def adagrad(rows, state, grads, step, *, learning_rate, epsilon=1e-7, weight_decay=0.0):
    """keras.optimizers.Adagrad, element-wise."""
    a = state + grads**2
    return rows - learning_rate * weight_decay * rows - learning_rate * grads / np.sqrt(a + epsilon), a


def adam(rows, state, grads, step, *, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.0):
    """keras.optimizers.Adam, element-wise."""
    dim = rows.shape[1]
    m = beta_1 * state[:, :dim] + (1 - beta_1) * grads
    v = beta_2 * state[:, dim:] + (1 - beta_2) * grads**2
    alpha = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    return rows - learning_rate * weight_decay * rows - alpha * m / (np.sqrt(v) + epsilon), np.concatenate([m, v], 1)


def momentum(rows, state, grads, step, *, learning_rate, momentum, nesterov=0.0, weight_decay=0.0):
    """keras.optimizers.SGD with momentum."""
    u = momentum * state - learning_rate * grads
    moved = momentum * u - learning_rate * grads if nesterov else u
    return rows - learning_rate * weight_decay * rows + moved, u


def adagrad_decay(
    rows,
    state,
    grads,
    step,
    *,
    learning_rate,
    decay_step,
    decay_rate,
    initial_accumulator_value=0.1,
    weight_decay=0.0,
):
    """DeepRec's AdagradDecay."""
    dim = rows.shape[1]
    a, k = state[:, :dim], state[:, dim:]
    fades = step // decay_step > k
    a = np.where(fades, np.maximum(decay_rate * a, initial_accumulator_value), a) + grads**2
    new_rows = rows - learning_rate * weight_decay * rows - learning_rate * grads / np.sqrt(a)
    return new_rows, np.concatenate([a, k + fades], axis=1)


def adam_amsgrad(rows, state, grads, step, *, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.0):
    """keras.optimizers.Adam with amsgrad."""
    dim = rows.shape[1]
    m = beta_1 * state[:, :dim] + (1 - beta_1) * grads
    v = beta_2 * state[:, dim : 2 * dim] + (1 - beta_2) * grads**2
    v_hat = np.maximum(state[:, 2 * dim :], v)
    alpha = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    new_rows = rows - learning_rate * weight_decay * rows - alpha * m / (np.sqrt(v_hat) + epsilon)
    return new_rows, np.concatenate([m, v, v_hat], 1)


def ftrl(
    rows,
    state,
    grads,
    step,
    *,
    learning_rate,
    learning_rate_power=-0.5,
    l1_regularization_strength=0.0,
    l2_regularization_strength=0.0,
    l2_shrinkage_regularization_strength=0.0,
    beta=0.0,
    weight_decay=0.0,
):
    """keras.optimizers.Ftrl."""
    dim, l1, p = rows.shape[1], l1_regularization_strength, -learning_rate_power
    a, z = state[:, :dim], state[:, dim:]
    rows = rows - learning_rate * weight_decay * rows
    total = a + grads**2
    z = z + grads + 2 * l2_shrinkage_regularization_strength * rows - (total**p - a**p) / learning_rate * rows
    l2 = l2_regularization_strength + beta / (2 * learning_rate)
    return (np.clip(z, -l1, l1) - z) / (total**p / learning_rate + 2 * l2), np.concatenate([total, z], 1)


def rmsprop(
    rows,
    state,
    grads,
    step,
    *,
    learning_rate,
    rho=0.9,
    momentum=0.0,
    epsilon=1e-7,
    weight_decay=0.0,
    centered=False,
):
    """keras.optimizers.RMSprop."""
    dim = rows.shape[1]
    v = rho * state[:, :dim] + (1 - rho) * grads**2
    q, new_state, rest = v, [v], state[:, dim:]
    if momentum:
        u, rest = rest[:, :dim], rest[:, dim:]
    if centered:
        a = rho * rest + (1 - rho) * grads
        q = v - a**2
    delta = learning_rate * grads / np.sqrt(q + epsilon)
    if momentum:
        delta = momentum * u + delta
        new_state.append(delta)
    if centered:
        new_state.append(a)
    return rows - learning_rate * weight_decay * rows - delta, np.concatenate(new_state, 1)


def rmsprop_momentum(*arguments, **hyperparameters):
    return rmsprop(*arguments, **hyperparameters)


def rmsprop_centered(*arguments, **hyperparameters):
    return rmsprop(*arguments, **hyperparameters, centered=True)


def rmsprop_centered_momentum(*arguments, **hyperparameters):
    return rmsprop(*arguments, **hyperparameters, centered=True)


_STATE_WIDTH = {
    momentum: lambda dim: dim,
    adagrad_decay: lambda dim: dim + 1,
    adam_amsgrad: lambda dim: 3 * dim,
    ftrl: lambda dim: 2 * dim,
    rmsprop: lambda dim: dim,
    rmsprop_momentum: lambda dim: 2 * dim,
    rmsprop_centered: lambda dim: 2 * dim,
    rmsprop_centered_momentum: lambda dim: 3 * dim,
    sgd: lambda dim: 0,
    row_wise_adagrad: lambda dim: 1,
    row_wise_adam: lambda dim: dim + 1,
    adagrad: lambda dim: dim,
    adam: lambda dim: 2 * dim,
}
RULE_TWINS = {twin.__name__: twin for twin in _STATE_WIDTH}


class TableTwin:
    """A matrix under an update rule, in float64; positions that a step does not name do not change."""

    def __init__(self, rows, rule, initial_state=0.0):
        self.rule = RULE_TWINS.get(rule, rule)
        self.rows = np.array(rows, np.float64)
        width = _STATE_WIDTH[self.rule](self.rows.shape[1])
        self.state = np.broadcast_to(np.asarray(initial_state, np.float64), (len(self.rows), width)).copy()
        self.step = 0

    def apply(self, positions, grads, **hyperparameters):
        """One optimizer step: the gradients of a repeated position are summed first, then the rule runs once."""
        self.step += 1
        touched, inverse = np.unique(np.asarray(positions), return_inverse=True)
        summed = np.zeros((touched.size, self.rows.shape[1]))
        np.add.at(summed, inverse, np.asarray(grads, np.float64))
        self.rows[touched], self.state[touched] = self.rule(
            self.rows[touched], self.state[touched], summed, self.step, **hyperparameters
        )
