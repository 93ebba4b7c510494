"""Runs an export through TensorFlow's C API, in a process without TensorFlow's Python.

    python c_api.py LIBRARY MODEL INPUT KEYS_FILE OUTPUT ROWS_FILE

LIBRARY is libtensorflow_cc.so, KEYS_FILE a .npy of int64 keys, INPUT and OUTPUT are tensors by name
(`serving_default_keys:0`). Writes the output, float32 of rank 2, to ROWS_FILE.
"""

import ctypes
import sys

import numpy as np

INT64, FLOAT = 9, 1


class Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class Api:
    """The functions that are needed, each checked by its status."""

    def __init__(self, path):
        self._library = ctypes.CDLL(path)
        self._status = self("TF_NewStatus", ctypes.c_void_p)

    def __call__(self, name, returns, *arguments):
        function = getattr(self._library, name)
        function.restype = returns
        return function(*arguments)

    def checked(self, name, returns, *arguments):
        result = self(name, returns, *arguments, ctypes.c_void_p(self._status))
        if self("TF_GetCode", ctypes.c_int, ctypes.c_void_p(self._status)) != 0:
            sys.exit(self("TF_Message", ctypes.c_char_p, ctypes.c_void_p(self._status)).decode())
        return result


def main(library, model, input_name, keys_file, output_name, rows_file):
    api, pointer = Api(library), ctypes.c_void_p
    graph = pointer(api("TF_NewGraph", pointer))
    options = pointer(api("TF_NewSessionOptions", pointer))
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(
        api.checked("TF_LoadSessionFromSavedModel", pointer, options, None, model.encode(), tags, 1, graph, None)
    )

    def tensor_of(name):
        operation, index = name.split(":")
        found = api("TF_GraphOperationByName", pointer, graph, operation.encode())
        assert found, name
        return Output(found, int(index))

    keys = np.load(keys_file)
    dims = (ctypes.c_int64 * keys.ndim)(*keys.shape)
    tensor = pointer(api("TF_AllocateTensor", pointer, INT64, dims, keys.ndim, ctypes.c_size_t(keys.nbytes)))
    ctypes.memmove(api("TF_TensorData", pointer, tensor), keys.tobytes(), keys.nbytes)
    inputs, input_values = (Output * 1)(tensor_of(input_name)), (pointer * 1)(tensor)
    outputs, output_values = (Output * 1)(tensor_of(output_name)), (pointer * 1)()
    api.checked("TF_SessionRun", None, session, None, inputs, input_values, 1, outputs, output_values, 1, None, 0, None)
    result = pointer(output_values[0])
    assert api("TF_TensorType", ctypes.c_int, result) == FLOAT
    shape = [api("TF_Dim", ctypes.c_int64, result, axis) for axis in range(2)]
    data = ctypes.string_at(api("TF_TensorData", pointer, result), 4 * shape[0] * shape[1])
    np.save(rows_file, np.frombuffer(data, np.float32).reshape(shape))


if __name__ == "__main__":
    main(*sys.argv[1:])
