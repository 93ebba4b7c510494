"""Interest evolution, the layers of DIEN (Zhou et al., AAAI 2019, arXiv 1809.03672).

Letters: B examples, T >= 1 history positions, W width of an item and of a state.
"""

import keras
from keras import ops


class _UpdateCell(keras.layers.Layer):
    """One position of `AttentionalGRU`, for `keras.layers.RNN`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, input_shape):
        """Creates U, of the three gates side by side."""
        shape = (self.state_size, 3 * self.state_size)
        self.kernel = self.add_weight(shape=shape, initializer="orthogonal", name="kernel")

    def call(self, inputs, states, training=None):
        """[x W + b, attention] of a position [B, 3 W + 1] and the state before -> the state, twice as RNN wants it."""
        (state,) = states
        of_input, attention = inputs[:, :-1], inputs[:, -1:]
        update_x, reset_x, candidate_x = ops.split(of_input, 3, axis=-1)
        update_h, reset_h, candidate_h = ops.split(state @ self.kernel, 3, axis=-1)
        update = attention * ops.sigmoid(update_x + update_h)
        candidate = ops.tanh(candidate_x + ops.sigmoid(reset_x + reset_h) * candidate_h)
        state = (1 - update) * state + update * candidate
        return state, [state]


class AttentionalGRU(keras.layers.Layer):
    """A GRU whose update gate is multiplied by an attention (AUGRU); with attention 1 it is a GRU.

        u_t = sigmoid(x_t W_u + b_u + h_{t-1} U_u)
        r_t = sigmoid(x_t W_r + b_r + h_{t-1} U_r)
        c_t = tanh(x_t W_c + b_c + r_t * (h_{t-1} U_c))
        h_t = (1 - a_t u_t) * h_{t-1} + a_t u_t * c_t,  h_0 = 0

    A position of attention 0, such as padding, leaves the state as it is.
    """

    def __init__(self, return_sequences=False, **kwargs):
        super().__init__(**kwargs)
        self.return_sequences = return_sequences

    def build(self, inputs_shape, attention_shape):
        """Creates the weights; the states are as wide as the inputs."""
        batch, positions, width = inputs_shape
        # x W + b of all positions in one product, outside of the loop.
        self.projection = keras.layers.Dense(3 * width)
        self.projection.build(inputs_shape)
        self.rnn = keras.layers.RNN(_UpdateCell(width), return_sequences=self.return_sequences)
        self.rnn.build((batch, positions, 3 * width + 1))

    def call(self, inputs, attention):
        """Inputs [B, T, W], attention [B, T] -> the last state [B, W], or with return_sequences all [B, T, W]."""
        return self.rnn(ops.concatenate([self.projection(inputs), attention[:, :, None]], axis=-1))


class NextClickLoss(keras.layers.Layer):
    """The auxiliary loss: a state must tell the next click of its history from one that is not.

        loss = -mean log sigmoid(<h_t, e_{t+1}>) - mean log(1 - sigmoid(<h_t, e'_{t+1}>))

    over the positions that have a next one. e' is what the next example of the batch has at that position (the first
    follows the last), so that it comes as often as it is clicked, as in the authors' code, and needs no lookup of its
    own; positions which that example does not have, or where it has the same item, are left out. `weight` times the
    loss is added to the model's, in training alone.
    """

    def __init__(self, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, states, keys, items, valid, training=None):
        """States and keys [B, T, W], items int64 and valid bool [B, T] -> the states as they are."""
        if training:
            self.add_loss(self.weight * self.loss(states, keys, items, valid))
        return states

    @staticmethod
    def loss(states, keys, items, valid):
        """The loss, a scalar."""
        states, other = states[:, :-1], ops.roll(keys, -1, axis=0)[:, 1:]
        has_next = valid[:, 1:]
        has_other = has_next & ops.roll(valid, -1, axis=0)[:, 1:] & (ops.roll(items, -1, axis=0) != items)[:, 1:]
        positive = ops.softplus(-ops.sum(states * keys[:, 1:], axis=-1))
        negative = ops.softplus(ops.sum(states * other, axis=-1))
        return _mean_where(has_next, positive) + _mean_where(has_other, negative)


def _mean_where(selected, values):
    """The mean of the selected values; 0 of none."""
    selected = ops.cast(selected, values.dtype)
    return ops.sum(selected * values) / ops.maximum(ops.sum(selected), 1.0)


class InterestEvolution(keras.layers.Layer):
    """DIEN's history vector: a GRU over the clicks, then one whose updates are gated by attention to the candidate.

    Args:
        attention: the layer whose `weights_of(query, keys, valid)` tells how much each state matters.
        auxiliary_weight: of `NextClickLoss`; 0 leaves it out.
    """

    def __init__(self, attention, auxiliary_weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.attention = attention
        self.extraction = AttentionalGRU(return_sequences=True)
        self.evolution = AttentionalGRU()
        self.next_click = NextClickLoss(auxiliary_weight) if auxiliary_weight else None

    def build(self, query_shape, keys_shape, items_shape, valid_shape):
        """Creates the weights of its layers."""
        self.extraction.build(keys_shape, items_shape)
        self.attention.build(query_shape, keys_shape, valid_shape)
        self.evolution.build(keys_shape, items_shape)

    def call(self, query, keys, items, valid, training=None):
        """Query [B, W], keys [B, T, W], their items int64 and valid bool [B, T] -> [B, W]; zeros of an empty one."""
        # Padding comes last, so that it cannot touch the states before it.
        states = self.extraction(keys, ops.ones_like(keys[:, :, 0]))
        if self.next_click is not None:
            states = self.next_click(states, keys, items, valid, training=training)
        return self.evolution(states, self.attention.weights_of(query, states, valid))
