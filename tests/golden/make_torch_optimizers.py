"""Writes torch_optimizers.json: what SparseAdam and FBGEMM's row-wise Adagrad do, for test_against_torch.py.

PyTorch and FBGEMM are needed here only, not by the tests. In a virtual environment of its own:

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install numpy
    pip install --no-deps fbgemm-gpu-cpu==1.8.0
    python tests/golden/make_torch_optimizers.py

Each case trains a table of ROWS x WIDTH on bags of keys, which repeat, with the loss sum(output * coefficients).
"""

import json
from pathlib import Path

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    OptimType,
    SplitTableBatchedEmbeddingBagsCodegen,
)

SEED = 20240602
ROWS, WIDTH, STEPS, BAGS, BAG_SIZE = 12, 8, 10, 6, 4


def batches(generator):
    """For each step keys [BAGS, BAG_SIZE], of which the last row is never one, and coefficients [BAGS, WIDTH]."""
    for _ in range(STEPS):
        keys = torch.randint(0, ROWS - 1, (BAGS, BAG_SIZE), generator=generator)
        yield keys, torch.randn(BAGS, WIDTH, generator=generator)


def sparse_adam(start, steps, learning_rate=0.01, betas=(0.8, 0.99), epsilon=1e-8):
    """Yields the weight after each step of torch.optim.SparseAdam."""
    bag = torch.nn.EmbeddingBag.from_pretrained(start.clone(), freeze=False, mode="sum", sparse=True)
    optimizer = torch.optim.SparseAdam(bag.parameters(), lr=learning_rate, betas=betas, eps=epsilon)
    for keys, coefficients in steps:
        optimizer.zero_grad()
        (bag(keys) * coefficients).sum().backward()
        optimizer.step()
        yield bag.weight.detach().clone()


def row_wise_adagrad(start, steps, learning_rate=0.1, epsilon=1e-8):
    """Yields the weight after each step of FBGEMM's EXACT_ROWWISE_ADAGRAD on the CPU."""
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, WIDTH, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=OptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=learning_rate,
        eps=epsilon,
    )
    (weight,) = tables.split_embedding_weights()
    weight.copy_(start)
    for keys, coefficients in steps:
        offsets = torch.arange(0, keys.numel() + 1, BAG_SIZE)
        (tables(keys.reshape(-1), offsets) * coefficients).sum().backward()
        yield weight.detach().clone()


def main():
    """Writes the file."""
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(ROWS, WIDTH, generator=generator)
    steps = list(batches(generator))
    out = {
        "torch": torch.__version__,
        "seed": SEED,
        "start": start.tolist(),
        "keys": [keys.tolist() for keys, _ in steps],
        "coefficients": [coefficients.tolist() for _, coefficients in steps],
        "sparse_adam": [weight.tolist() for weight in sparse_adam(start, steps)],
        "row_wise_adagrad": [weight.tolist() for weight in row_wise_adagrad(start, steps)],
    }
    path = Path(__file__).with_name("torch_optimizers.json")
    # 9 digits tell every float32 from its neighbours.
    rounded = json.loads(json.dumps(out), parse_float=lambda text: float(f"{float(text):.9g}"))
    path.write_text(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
