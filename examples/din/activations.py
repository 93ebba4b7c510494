"""The activations of the MLP's hidden layers: the paper's Dice, PReLU, sigmoid."""

import keras
from keras import ops

ACTIVATIONS = ("dice", "prelu", "sigmoid")


class Dice(keras.layers.Layer):
    """The paper's activation: f(s) = p s + (1 - p) alpha s, p = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8)).

    E and Var are those of the batch in training and moving averages otherwise; alpha [units] starts at zero.
    """

    def build(self, input_shape):
        """Creates alpha and the moving averages."""
        self.alpha = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="alpha")
        self.standardize = keras.layers.BatchNormalization(epsilon=1e-8, center=False, scale=False)
        self.standardize.build(input_shape)

    def call(self, inputs, training=None):
        """Inputs [B, units] -> [B, units]."""
        p = ops.sigmoid(self.standardize(inputs, training=training))
        return (p + (1 - p) * self.alpha) * inputs


def make_activation(name):
    """A new activation layer, for [B, units]."""
    if name == "dice":
        return Dice()
    if name == "prelu":
        return keras.layers.PReLU()
    if name == "sigmoid":
        return keras.layers.Activation("sigmoid")
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
