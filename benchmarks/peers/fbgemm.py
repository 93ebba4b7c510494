"""FBGEMM's table-batched embedding on CPU, whose backward pass updates the rows."""

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen

from benchmarks.peers.torch_layers import TorchTraining

POOLING = {None: PoolingMode.NONE, "mean": PoolingMode.MEAN, "sum": PoolingMode.SUM}


class Training(TorchTraining):
    """One batch of F tables, EXACT_ROWWISE_ADAGRAD."""

    def prepare(self, task, keys, targets):
        """See TrainingContestant."""
        self.task = task
        self.targets = torch.from_numpy(targets)
        self.batches = [torch.from_numpy(batch.reshape(-1)) for batch in keys]
        self.offsets = torch.from_numpy(np.arange(0, keys[0].size + 1, task.length))
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, task.dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in task.cardinalities],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=task.learning_rate,
            eps=1e-8,
            pooling_mode=POOLING[task.combiner],
            bounds_check_mode=BoundsCheckMode.NONE,
        )
        if task.constant is None:
            self.tables.init_embedding_weights_uniform(-0.05, 0.05)
        else:
            for weights in self.tables.split_embedding_weights():
                weights.fill_(task.constant)

    def look_up(self, batch):
        """The output for keys [N]."""
        values = self.tables(batch, self.offsets)
        if self.task.combiner is None:
            values = values.view(self.task.batch, self.task.length, self.task.dim).mean(dim=1)
        return values

    def step(self, number):
        """See TrainingContestant."""
        loss = self.loss(number)
        loss.backward()
        return loss.item()

    def rows(self, feature, keys):
        """See TrainingContestant."""
        return self.tables.split_embedding_weights()[feature][torch.from_numpy(keys)].detach().numpy()
