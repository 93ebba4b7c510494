"""The C++ ops as TensorFlow generates them from `_ops.so`, e.g. `sparse_emb_embedding_lookup`.

Loading checks that the library was built for the TensorFlow that is running: the ABI of custom ops changes
with every minor version, and a wrong library would end in an undefined symbol or a crash.
"""

import contextlib
import contextvars
from pathlib import Path

import tensorflow as tf

_LIBRARY = Path(__file__).parent / "_ops.so"
_BUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."


def _minor(version):
    return ".".join(version.split(".")[:2])


def _load():
    try:
        from tf_sparse_emb import _build_info
    except ImportError:
        raise ImportError(
            f"tf_sparse_emb has no op library for this Python: it has not been built. In its source folder: {_BUILD}"
        ) from None
    built_for, running = _build_info.TENSORFLOW_VERSION, tf.__version__
    if _minor(built_for) != _minor(running):
        raise ImportError(
            f"tf_sparse_emb was built for TensorFlow {built_for}, but TensorFlow {running} is running. Build it again "
            f"against {running}, in its source folder: {_BUILD}. Or install tensorflow~={_minor(built_for)}.0"
        )
    try:
        return tf.load_op_library(str(_LIBRARY))
    except tf.errors.NotFoundError as error:
        raise ImportError(
            f"tf_sparse_emb cannot load {_LIBRARY.name}, built for TensorFlow {built_for}, into TensorFlow {running}: "
            f"{error.message}. Build it again, in its source folder: {_BUILD}"
        ) from error


class _Library:
    """The ops by name."""

    def __init__(self, loaded):
        self._loaded = loaded
        self._stand_ins = contextvars.ContextVar("stand_ins", default=None)

    def __getattr__(self, name):
        return getattr(self._stand_ins.get() or self._loaded, name)

    @contextlib.contextmanager
    def replaced_by(self, stand_ins):
        """Within it this thread's ops are those of `stand_ins`, by the same names; None: the ops again."""
        token = self._stand_ins.set(stand_ins)
        try:
            yield
        finally:
            self._stand_ins.reset(token)


library = _Library(_load())
