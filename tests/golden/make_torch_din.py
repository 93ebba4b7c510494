"""Writes torch_din.json: the logits of examples/din/torch_reference.py, for test_din_model.py.

PyTorch is needed here only, not by the tests. In a virtual environment of its own:

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install numpy
    python tests/golden/make_torch_din.py

The weights are drawn from the seed in the order and shapes of the Keras layers, here and in the test.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from din.torch_reference import Din  # noqa: E402

SEED, DIM, HIDDEN = 20240604, 2, (5, 3)
NUM_ROWS = {"user": 2, "item": 12, "category": 4}
BATCH, POSITIONS = 6, 5

_MLP = [
    *("mlp.0.weight", "mlp.0.bias", "mlp.1.alpha", "mlp.1.standardize.running_mean", "mlp.1.standardize.running_var"),
    *("mlp.2.weight", "mlp.2.bias", "mlp.3.alpha", "mlp.3.standardize.running_mean", "mlp.3.standardize.running_var"),
    *("mlp.4.weight", "mlp.4.bias"),
]
_ATTENTION = ["first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.2.weight", "rest.2.bias"]
IN_ORDER_OF_KERAS = [
    *("item_table.weight", "category_table.weight"),
    *(f"attention.{name}" for name in _ATTENTION),
    *("normalize.weight", "normalize.bias", "normalize.running_mean", "normalize.running_var"),
    *_MLP,
    "item_bias.weight",
]


def main():
    """Writes the file."""
    model = Din(NUM_ROWS, DIM, HIDDEN)
    state, rng = model.state_dict(), np.random.default_rng(SEED)
    for name in IN_ORDER_OF_KERAS:
        # A linear layer of PyTorch holds the kernel of Keras' turned over.
        turned = state[name].ndim == 2 and name.split(".")[0] in ("attention", "mlp")
        shape = tuple(state[name].shape[::-1] if turned else state[name].shape)
        values = rng.uniform(0.1, 1.0, shape) - 0.4 * (len(shape) > 1)
        state[name].copy_(torch.from_numpy(values.T if turned else values))
    mask = np.arange(POSITIONS) < rng.integers(1, POSITIONS + 1, (BATCH, 1))
    batch = {
        "user": rng.integers(0, NUM_ROWS["user"], BATCH),
        "item": rng.integers(0, NUM_ROWS["item"], BATCH),
        "category": rng.integers(0, NUM_ROWS["category"], BATCH),
        "history_items": rng.integers(0, NUM_ROWS["item"], (BATCH, POSITIONS)) * mask,
        "history_categories": rng.integers(0, NUM_ROWS["category"], (BATCH, POSITIONS)) * mask,
        "history_mask": mask,
    }
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    with torch.no_grad():
        logits = model.eval()(tensors).tolist()
        in_training = model.train()(tensors).tolist()
    content = {
        "torch": torch.__version__,
        "seed": SEED,
        "dim": DIM,
        "hidden": HIDDEN,
        "num_rows": NUM_ROWS,
        "batch": {name: values.tolist() for name, values in batch.items()},
        "logits": logits,
        "logits_in_training": in_training,
    }
    Path(__file__).with_name("torch_din.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
