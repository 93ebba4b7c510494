"""torch.nn.Embedding and torch.nn.EmbeddingBag with sparse gradients."""

import torch

from benchmarks.peers.training import TrainingContestant


class TorchTraining(TrainingContestant):
    """What the contestants in PyTorch share: threads, batches and the loss. `look_up(batch)` returns [B, F D]."""

    @staticmethod
    def use_threads(threads):
        """For all ops."""
        torch.set_num_threads(threads)

    def loss(self, number):
        """The loss on batch `number`, a tensor with a gradient."""
        return torch.nn.functional.mse_loss(self.look_up(self.batches[number]), self.targets)


class Training(TorchTraining):
    """A layer for each feature: Embedding, or where the task pools, EmbeddingBag."""

    def prepare(self, task, keys, targets):
        """See TrainingContestant."""
        self.task = task
        self.targets = torch.from_numpy(targets)
        self.batches = [[torch.from_numpy(feature) for feature in batch] for batch in keys]
        pools = task.combiner is not None
        self.layers = []
        for rows in task.cardinalities:
            if pools:
                layer = torch.nn.EmbeddingBag(rows, task.dim, mode=task.combiner, sparse=True)
            else:
                layer = torch.nn.Embedding(rows, task.dim, sparse=True)
            with torch.no_grad():
                if task.constant is None:
                    layer.weight.uniform_(-0.05, 0.05)
                else:
                    layer.weight.fill_(task.constant)
            self.layers.append(layer)
        weights = [layer.weight for layer in self.layers]
        kind = torch.optim.Adagrad if self.rule == "torch_adagrad" else torch.optim.SparseAdam
        self.optimizer = kind(weights, lr=task.learning_rate)

    def look_up(self, batch):
        """The output for keys, a list of F tensors [B, L]."""
        values = [layer(feature) for layer, feature in zip(self.layers, batch, strict=True)]
        if self.task.combiner is None:
            values = [value.mean(dim=1) if self.task.length > 1 else value[:, 0] for value in values]
        return values[0] if len(values) == 1 else torch.cat(values, dim=1)

    def step(self, number):
        """See TrainingContestant."""
        self.optimizer.zero_grad()
        loss = self.loss(number)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def rows(self, feature, keys):
        """See TrainingContestant."""
        return self.layers[feature].weight.detach()[torch.from_numpy(keys)].numpy()
