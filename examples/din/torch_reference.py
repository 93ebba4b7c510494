"""The DIN of model.py in PyTorch, for the comparison: `python examples/din/torch_reference.py --help`.

The same data, batches and order as train.py of the same seed, the same layers and initial distributions;
`nn.Embedding(sparse=True)` with SparseAdam, Adam for the rest. Needs torch and numpy alone. Ends with one line
`RESULT {json}`, as train.py.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import data, metrics
from din.dataset import epoch_of_batches

EVALUATION_BATCH_SIZE = 1024


def dense(inputs, outputs):
    """A linear layer that begins as Keras' does."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Dice(nn.Module):
    """f(s) = p s + (1 - p) alpha s, p = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8))."""

    def __init__(self, units):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(units))
        self.standardize = nn.BatchNorm1d(units, eps=1e-8, momentum=0.01, affine=False)

    def forward(self, inputs):
        """Inputs [B, units] -> [B, units]."""
        p = torch.sigmoid(self.standardize(inputs))
        return (p + (1 - p) * self.alpha) * inputs


class Attention(nn.Module):
    """`LocalActivationUnit` with the softmax: scores of [q, k, q - k, q * k] @ kernel, by blocks of the kernel."""

    def __init__(self, width, hidden=(80, 40)):
        super().__init__()
        self.first = dense(4 * width, hidden[0])
        self.rest = nn.Sequential(dense(*hidden), nn.Sigmoid(), dense(hidden[1], 1))

    def forward(self, query, keys, valid):
        """Query [B, W], keys [B, T, W], valid bool [B, T] -> history vector [B, W]."""
        of_query, of_key, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        query = query[:, None, :]
        scores = query @ (of_query + of_difference).T + keys @ (of_key - of_difference).T
        scores = self.rest(torch.sigmoid(scores + (query * keys) @ of_product.T + self.first.bias))[:, :, 0]
        weights = torch.softmax(torch.where(valid, scores / keys.shape[-1] ** 0.5, -1e9), dim=-1)
        return torch.einsum("bt,btw->bw", torch.where(valid, weights, 0.0), keys)


class Din(nn.Module):
    """DIN with Dice, batch normalisation and an item bias: the defaults of train.py."""

    def __init__(self, num_rows, dim=64, hidden=(80, 40)):
        super().__init__()
        self.item_table = nn.Embedding(num_rows["item"], dim, sparse=True)
        self.category_table = nn.Embedding(num_rows["category"], dim, sparse=True)
        self.item_bias = nn.Embedding(num_rows["item"], 1, sparse=True)
        for table in (self.item_table, self.category_table):
            nn.init.uniform_(table.weight, -0.05, 0.05)
        nn.init.zeros_(self.item_bias.weight)
        self.attention = Attention(2 * dim)
        self.normalize = nn.BatchNorm1d(2 * dim, eps=1e-3, momentum=0.01)
        widths = (6 * dim, *hidden)
        layers = [[dense(*pair), Dice(pair[1])] for pair in zip(widths, hidden, strict=False)]
        self.mlp = nn.Sequential(*sum(layers, []), dense(hidden[-1], 1))

    def tables(self):
        """The parameters with sparse gradients."""
        return [self.item_table.weight, self.category_table.weight, self.item_bias.weight]

    def forward(self, batch):
        """A batch of `dataset.padded_batch` -> logits [B]."""
        candidate = torch.cat([self.item_table(batch["item"]), self.category_table(batch["category"])], dim=-1)
        of_history = [self.item_table(batch["history_items"]), self.category_table(batch["history_categories"])]
        history = self.attention(candidate, torch.cat(of_history, dim=-1), batch["history_mask"])
        history, candidate = self.normalize(torch.cat([history, candidate])).chunk(2)
        features = torch.cat([history, candidate, history * candidate], dim=-1)
        return (self.mlp(features) + self.item_bias(batch["item"]))[:, 0]


class Batches(torch.utils.data.IterableDataset):
    """The batches of all epochs."""

    def __init__(self, dataset, examples, batch_size, epochs=1, shuffle_seed=None):
        self.arguments = dataset, examples, batch_size
        self.epochs, self.shuffle_seed = epochs, shuffle_seed

    def __iter__(self):
        rng = None if self.shuffle_seed is None else np.random.default_rng(self.shuffle_seed)
        for _ in range(self.epochs):
            yield from epoch_of_batches(*self.arguments, rng)

    def load(self, workers):
        """An iterable of (inputs, labels), tensors."""
        prefetch = 8 if workers else None
        return torch.utils.data.DataLoader(self, batch_size=None, num_workers=workers, prefetch_factor=prefetch)


def evaluate(model, dataset):
    """AUC and GAUC of the held-out examples."""
    examples = dataset.held_out
    model.eval()
    with torch.no_grad():
        batches = Batches(dataset, examples, EVALUATION_BATCH_SIZE).load(workers=0)
        scores = torch.cat([model(inputs) for inputs, _ in batches]).numpy()
    model.train()
    return metrics.auc(examples.labels, scores), metrics.gauc(examples.users, examples.labels, scores)


def train(model, dataset, learning_rate, epochs, seed, batch_size=128, evaluations_per_epoch=1):
    """Trains on batches that a worker process makes meanwhile.

    Returns: the curve: of each evaluation the seconds of training before it, AUC and GAUC; and the seconds of processor
        time of the training, those of the worker included.
    """
    tables = model.tables()
    others = [parameter for parameter in model.parameters() if all(parameter is not table for table in tables)]
    optimizers = [
        torch.optim.SparseAdam(tables, lr=learning_rate, eps=1e-7),
        torch.optim.Adam(others, lr=learning_rate, eps=1e-7),
    ]
    steps = -(-len(dataset.train) // batch_size)
    curve, seconds, cpu_seconds = [], 0.0, 0.0
    began, cpu_began = time.perf_counter(), time.process_time()
    batches = Batches(dataset, dataset.train, batch_size, epochs, shuffle_seed=seed).load(workers=1)
    for step, (inputs, labels) in enumerate(batches):
        for optimizer in optimizers:
            optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(model(inputs), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
        done = step % steps + 1
        if done * evaluations_per_epoch // steps > (done - 1) * evaluations_per_epoch // steps:
            seconds += time.perf_counter() - began
            cpu_seconds += time.process_time() - cpu_began
            auc, gauc = evaluate(model, dataset)
            curve.append([round(value, 5) for value in (seconds, auc, gauc)])
            print(f"step {step + 1}: AUC {auc:.4f}, GAUC {gauc:.4f}", flush=True)
            began, cpu_began = time.perf_counter(), time.process_time()
    worker = resource.getrusage(resource.RUSAGE_CHILDREN)  # it has ended with the last batch
    return curve, cpu_seconds + worker.ru_utime + worker.ru_stime


def main(arguments=None):
    """Trains, evaluates, prints the result line and returns its content."""
    parser = argparse.ArgumentParser(description="Trains DIN in PyTorch, with SparseAdam.")
    parser.add_argument("--dataset", choices=data.NAMES, default="video-games")
    parser.add_argument("--data-dir", help="folder of the files of any dataset but generated")
    parser.add_argument("--split", choices=data.SPLITS, default="test")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluations-per-epoch", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    dataset, num_rows = data.load(options.dataset, options.data_dir, options.split).reindexed()
    model = Din(num_rows)
    curve, cpu_seconds = train(
        model,
        dataset,
        options.learning_rate,
        options.epochs,
        options.seed,
        evaluations_per_epoch=options.evaluations_per_epoch,
    )
    seconds, auc, gauc = curve[-1]
    result = {
        **{name: value for name, value in vars(options).items() if name not in ("data_dir", "evaluations_per_epoch")},
        "model": "din",
        "embedding": f"torch {torch.__version__}",
        "optimizer": "sparse_adam",
        "auc": auc,
        "gauc": gauc,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "examples_per_second": round(options.epochs * len(dataset.train) / seconds),
        "table_rows": sum(len(table) for table in model.tables()),
        "table_bytes": sum(4 * table.numel() for table in model.tables()),
    }
    if options.evaluations_per_epoch > 1:
        result["curve"] = curve
    print("RESULT " + json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    main()
