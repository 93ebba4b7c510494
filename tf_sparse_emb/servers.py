"""Where the tables are that are made in a strategy's scope."""

import dataclasses
import re
import weakref

import tensorflow as tf

# The options of strategies that `tse.distribute.parameter_server_strategy` has made.
_wire_dtypes = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Servers:
    """Where the shards of tables are.

    Attributes:
        devices: tuple of str, one for each server.
        wire_dtype: tf.DType, of rows and gradients on their way.
    """

    devices: tuple[str, ...]
    wire_dtype: tf.DType = tf.float32


def set_wire_dtype(strategy, dtype):
    """Sets what rows and gradients of tables made in the strategy's scope are sent as."""
    _wire_dtypes[strategy] = dtype


def is_parameter_server_strategy(strategy):
    """Whether its variables are on parameter servers."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def servers_here():
    """The `Servers` of the strategy in whose scope this is called, or None: tables are of this process."""
    strategy = tf.distribute.get_strategy()
    if not is_parameter_server_strategy(strategy):
        return None
    # The strategy has connected this process to them.
    devices = [device.name for device in tf.config.list_logical_devices("CPU") if "/job:ps/" in device.name]
    devices.sort(key=lambda name: int(re.search(r"/task:(\d+)", name)[1]))
    return Servers(tuple(devices), _wire_dtypes.get(strategy, tf.float32))
