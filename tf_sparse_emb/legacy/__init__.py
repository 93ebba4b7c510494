"""The layers and optimizers for models of tf_keras, that is Keras 2, for those who cannot leave it.

`import tf_sparse_emb` does not import it; `tse.legacy` does, and needs tf_keras.
"""

import tensorflow as tf

try:
    import tf_keras  # noqa: F401
except ImportError as error:
    _minor = ".".join(tf.__version__.split(".")[:2])
    raise ImportError(
        f"tse.legacy is made of layers and optimizers of tf_keras, which cannot be imported ({error}). Install the one "
        f'of your TensorFlow {tf.__version__}: pip install --no-deps "tf_keras=={_minor}.*" (--no-deps, because it '
        "requires the package tensorflow, also where tensorflow-cpu is installed). Models of Keras 3 do not need it: "
        "they take tse.Embedding and tse.optimizers"
    ) from error

from tf_sparse_emb.legacy.layers import Embedding, EmbeddingCollection  # noqa: E402
from tf_sparse_emb.legacy.optimizers import (  # noqa: E402
    SGD,
    Adagrad,
    AdagradDecay,
    Adam,
    AdamW,
    Ftrl,
    RMSprop,
    RowWiseAdagrad,
    RowWiseAdam,
)
from tf_sparse_emb.legacy.sparse_optimizer import SparseOptimizer  # noqa: E402

__all__ = [
    "Adagrad",
    "AdagradDecay",
    "Adam",
    "AdamW",
    "Embedding",
    "EmbeddingCollection",
    "Ftrl",
    "RMSprop",
    "RowWiseAdagrad",
    "RowWiseAdam",
    "SGD",
    "SparseOptimizer",
]
