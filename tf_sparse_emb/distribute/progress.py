"""How far a training has come."""

import json

import numpy as np
import tensorflow as tf


class Progress(tf.train.experimental.PythonState):
    """The epoch, the step in it and the sums of its metrics, as a checkpoint has them.

    Attributes:
        epoch: int, how many epochs are done.
        step: int, how many steps of the next are.
        metric_sums: list of lists, what these have added to the metrics; empty before the first.
    """

    def __init__(self):
        self.epoch, self.step, self.metric_sums = 0, 0, []

    @property
    def is_under_way(self):
        """Whether any step was done."""
        return self.epoch > 0 or self.step > 0

    def end_steps(self, count, metric_sums):
        """Notes that so many more steps are done."""
        self.step += count
        self.metric_sums = metric_sums

    def end_epoch(self):
        """Notes that the epoch is done."""
        self.epoch, self.step, self.metric_sums = self.epoch + 1, 0, []

    def serialize(self):
        """What a checkpoint holds, a str."""
        sums = [np.asarray(value).tolist() for value in self.metric_sums]
        return json.dumps({"epoch": self.epoch, "step": self.step, "metric_sums": sums})

    def deserialize(self, string_value):
        """Takes what `serialize` returned."""
        state = json.loads(string_value)
        self.epoch, self.step, self.metric_sums = state["epoch"], state["step"], state["metric_sums"]
