"""What the training contestants share: `TrainingContestant` times steps and answers the check."""

import time

import numpy as np

from benchmarks.training_task import TrainingTask


class TrainingContestant:
    """A contestant in training steps. A peer's class makes one by `prepare` and `step`.

    prepare(task, keys, targets): makes the tables, the optimizer and the batches; keys int64 [batches, F, B, L].
    step(number): one step on batch `number`, which returns the loss as a float.
    rows(feature, keys): the rows of keys [n], an array [n, D].
    """

    def __init__(self, threads, rule):
        self.rule = rule
        self.use_threads(threads)
        self.steps = 0

    def check(self, task, keys, targets):
        """Runs one step on each batch of a small task. Returns the losses, and the rows of every table."""
        task = TrainingTask(**task)
        self.prepare(task, np.array(keys), np.array(targets, np.float32))
        losses = [float(self.step(number)) for number in range(task.batches)]
        rows = [self.rows(feature, np.arange(size)) for feature, size in enumerate(task.cardinalities)]
        return {"losses": losses, "rows": [np.asarray(table, np.float64).tolist() for table in rows]}

    def load(self, task, path):
        """Prepares for steps on the keys and targets in a file of `np.savez`."""
        self.task = TrainingTask(**task)
        with np.load(path) as arrays:
            self.prepare(self.task, arrays["keys"], arrays["targets"])

    def run(self, steps):
        """Runs steps, and returns of each the milliseconds and those of this process' CPU time, [steps, 2]."""
        times = []
        for _ in range(steps):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            loss = self.step(self.steps % self.task.batches)
            times.append([1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - begin_cpu)])
            assert np.isfinite(loss), loss
            self.steps += 1
        return times
