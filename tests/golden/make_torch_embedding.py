"""Writes torch_embedding.json: what torch.nn.Embedding and EmbeddingBag do, for test_against_torch.py.

PyTorch is needed here only, not by the tests. In a virtual environment of its own:

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install numpy
    python tests/golden/make_torch_embedding.py

A case is a module with its options, and a few steps of torch.optim.SGD on loss = sum(output * coefficients). Every
case draws from a generator of its own, so that a new case leaves the others as they are.
"""

import json
import zlib
from pathlib import Path

import torch

SEED = 20240601
ROWS, WIDTH = 9, 4
LEARNING_RATE = 0.1
# By norm_type. What the rows are multiplied by lays some over it and some not, and 3 over it.
MAX_NORM = {1.0: 3.0, 2.0: 1.7, 3.0: 1.5, "inf": 1.2}
SPREAD = [0.3, 1.0, 0.3, 2.0, 1.0, 0.3, 2.0, 1.0, 2.0]

# Keys repeat within a bag and between bags; 4 never comes. With padding_idx=3 some bags hold nothing else.
DENSE = [
    ([[0, 3, 3, 8], [3, 3, 3, 3], [8, 5, 1, 5]], None),
    ([[8, 0, 0, 0], [7, 3, 1, 2], [2, 6, 2, 3]], None),
    ([[3, 3, 3, 3], [6, 5, 8, 0], [5, 6, 0, 8]], None),
]
# Keys and offsets. Bags are empty at the start, in the middle and at the end, and all of them in one batch.
RAGGED = [
    ([0, 3, 3, 8, 5, 5, 1, 3, 3, 8, 0, 7], [0, 0, 4, 7, 7, 9, 12]),
    ([6, 1, 2, 6, 2, 3, 3, 0, 8, 0], [0, 2, 2, 6, 7]),
    ([], [0, 0, 0]),
    ([7, 3, 1, 5, 2, 0, 8, 3, 3, 3, 6], [0, 3, 7, 10]),
]
# As RAGGED, but the keys of a batch all come equally often.
EVEN = [
    ([0, 3, 3, 8, 5, 5, 8, 0], [0, 0, 3, 6, 8]),
    ([1, 2, 1, 3, 2, 2, 1, 3, 3], [0, 2, 7, 7]),
    ([6, 7, 0, 3], [0, 3]),
]
# For the combiner "max": column -> value -> the rows that have it, so that rows of a bag are exactly equal there. The
# first of them in the bag is at times the first in the batch and the least key, and at times not.
TIES = {0: {3.0: [0, 8, 7]}, 1: {3.5: [0, 8]}, 2: {3.25: [1, 5], -1.0: [2, 6]}, 3: {2.75: [1, 5], 2.5: [2, 6]}}


def cases():
    """Returns {name: options}: those of tse.Embedding by its names, and bags, weighted and pretrained for here."""
    named = {
        "plain": {},
        "padding_0": {"padding_idx": 0},
        "padding_3": {"padding_idx": 3},
        "padding_last": {"padding_idx": -1},
        "scale_grad_by_freq": {"scale_grad_by_freq": True},
        "scale_grad_by_freq_padding_3": {"scale_grad_by_freq": True, "padding_idx": 3},
        "max_norm_padding_3": {"padding_idx": 3, **max_norm(2.0)},
        "max_norm_scale_grad_by_freq_padding_3": {"scale_grad_by_freq": True, "padding_idx": 3, **max_norm(2.0)},
        "pretrained_frozen": {"pretrained": "frozen"},
        "pretrained_frozen_max_norm": {"pretrained": "frozen", **max_norm(2.0)},
        "pretrained": {"pretrained": "trainable"},
        # The padding row is what it was given as, and not zero.
        "pretrained_padding_3": {"pretrained": "trainable", "padding_idx": 3},
        "pretrained_padding_last": {"pretrained": "trainable", "padding_idx": -1},
        "pretrained_max_norm_padding_3": {"pretrained": "trainable", "padding_idx": 3, **max_norm(2.0)},
    }
    for norm_type in MAX_NORM:
        named[f"max_norm_{norm_type}"] = max_norm(norm_type)
    for bags in ("offsets", "dense"):
        for combiner, weighted in (("sum", False), ("sum", True), ("mean", False), ("max", False)):
            name = f"bags_{bags}_{'weighted_' if weighted else ''}{combiner}"
            options = {"bags": bags, "combiner": combiner, "weighted": weighted}
            named[name] = options
            named[f"{name}_padding_3"] = {**options, "padding_idx": 3}
            if bags == "dense":
                continue
            named[f"{name}_max_norm"] = {**options, **max_norm(2.0)}
            if combiner != "max":  # where torch has no scale_grad_by_freq
                scaled = {**options, "scale_grad_by_freq": True}
                named[f"{name}_scale_grad_by_freq_even"] = {**scaled, "bags": "even"}
                named[f"{name}_scale_grad_by_freq_even_padding_3"] = {**scaled, "bags": "even", "padding_idx": 3}
                named[f"{name}_scale_grad_by_freq"] = {**scaled, "bags": "pooled"}
                named[f"{name}_scale_grad_by_freq_padding_3"] = {**scaled, "bags": "pooled", "padding_idx": 3}
    named["bags_offsets_pretrained_padding_3"] = {
        "bags": "offsets",
        "combiner": "mean",
        "pretrained": "trainable",
        "padding_idx": 3,
    }
    named["bags_offsets_mean_padding_last"] = {"bags": "offsets", "combiner": "mean", "padding_idx": -1}
    named["bags_offsets_sum_max_norm_padding_3"] = {
        "bags": "offsets",
        "combiner": "sum",
        "padding_idx": 3,
        **max_norm(2.0),
    }
    return named


def max_norm(norm_type):
    """Returns the options that bound rows by this norm."""
    return {"max_norm": MAX_NORM[norm_type], "norm_type": norm_type}


class PooledEmbedding(torch.nn.Embedding):
    """nn.Embedding and pooling, in place of EmbeddingBag with scale_grad_by_freq.

    On the CPU EmbeddingBag divides a key's gradient by the count of another key, unless all counts are equal:
    https://github.com/pytorch/pytorch/issues/190063. nn.Embedding divides by the right one.
    """

    def __init__(self, *args, mode, **kwargs):
        super().__init__(*args, **kwargs)
        self.mode = mode

    def forward(self, keys, offsets, per_sample_weights=None):
        """Returns the pooled rows, as EmbeddingBag does."""
        kept = (keys != self.padding_idx).float() if self.padding_idx is not None else torch.ones(keys.shape)
        bag = torch.repeat_interleave(torch.diff(offsets, append=torch.tensor([len(keys)])))
        coefficients = kept if per_sample_weights is None else kept * per_sample_weights
        products = super().forward(keys) * coefficients[:, None]
        pooled = torch.zeros(len(offsets), WIDTH).index_add(0, bag, products)
        if self.mode == "mean":
            pooled = pooled / torch.zeros(len(offsets)).index_add(0, bag, kept).clamp(min=1)[:, None]
        return pooled


def make_module(combiner=None, pretrained=None, bags=None, weighted=False, norm_type=2.0, **options):
    """Returns the torch module of a case."""
    options = {**options, "norm_type": float(norm_type)}
    if combiner is not None:
        options["mode"] = combiner
    kind = PooledEmbedding if bags == "pooled" else torch.nn.EmbeddingBag if bags else torch.nn.Embedding
    if pretrained is None:
        module = kind(ROWS, WIDTH, **options)
    else:
        module = kind.from_pretrained(torch.randn(ROWS, WIDTH), freeze=pretrained == "frozen", **options)
    with torch.no_grad():
        if "max_norm" in options:
            module.weight *= torch.tensor(SPREAD)[:, None]
            over = module.weight.norm(options["norm_type"], dim=1) > options["max_norm"]
            assert 2 <= over.sum() <= ROWS - 2, over
        elif combiner == "max":
            for column, tied in TIES.items():
                for value, rows in tied.items():
                    module.weight[rows, column] = value
    return module


def run_case(options):
    """Returns a case as it is written: its options, the initial rows and its steps."""
    module = make_module(**options)
    initial = numbers(module.weight)
    optimizer = torch.optim.SGD([module.weight], lr=LEARNING_RATE)
    batches = {"offsets": RAGGED, "pooled": RAGGED, "even": EVEN}.get(options.get("bags"), DENSE)
    steps = [run_step(module, optimizer, keys, offsets, options) for keys, offsets in batches]
    shown = {name: value for name, value in options.items() if name not in ("bags", "weighted")}
    return {"options": shown, "initial": initial, "steps": steps}


def run_step(module, optimizer, keys, offsets, options):
    """Returns one step: its batch, and what comes of it."""
    step = {"keys": keys}
    keys = torch.tensor(keys, dtype=torch.int64)
    arguments, weights = {}, None
    if offsets is not None:
        step["offsets"] = offsets
        arguments["offsets"] = torch.tensor(offsets)
    if options.get("weighted"):
        weights = torch.randn(keys.shape)
        if keys.numel():
            weights.view(-1)[1] = 0.0
        step["weights"] = numbers(weights)
        arguments["per_sample_weights"] = weights.requires_grad_()
    output = module(keys, **arguments)
    if "max_norm" in options:
        step["rows_after_forward"] = numbers(module.weight)
    coefficients = torch.randn(output.shape)
    step["coefficients"] = numbers(coefficients)
    step["output"] = numbers(output)
    if module.weight.requires_grad:
        optimizer.zero_grad()
        (output * coefficients).sum().backward()
        optimizer.step()
        step["gradient"] = numbers(module.weight.grad)
        if weights is not None:
            step["weights_gradient"] = numbers(weights.grad)
    step["rows"] = numbers(module.weight)
    return step


def numbers(tensor):
    """Returns a float32 tensor as nested lists, with the nine digits that name each float32."""
    tensor = tensor.detach()
    written = [float(f"{value:.9g}") for value in tensor.reshape(-1).tolist()]
    assert torch.equal(torch.tensor(written, dtype=torch.float32), tensor.reshape(-1))
    return torch.tensor(written, dtype=torch.float64).reshape(tensor.shape).tolist()


def main():
    """Writes the file."""
    torch.set_num_threads(1)
    written = {}
    for name, options in cases().items():
        torch.manual_seed(SEED + zlib.crc32(name.encode()))
        written[name] = json.dumps(run_case(options), allow_nan=False)
    head = json.dumps({"torch": torch.__version__, "seed": SEED, "learning_rate": LEARNING_RATE})
    lines = ",\n".join(f"{json.dumps(name)}: {case}" for name, case in written.items())
    path = Path(__file__).with_name("torch_embedding.json")
    path.write_text(f'{head[:-1]}, "cases": {{\n{lines}\n}}}}\n')
    print(f"{len(written)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
