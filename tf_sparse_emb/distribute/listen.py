"""Where the TensorFlow server of this process listens."""

import ctypes
import socket
from pathlib import Path

import tf_sparse_emb.gen_ops


def listen_only_at(address, at=None):
    """Has the server that this process makes next listen at its own address alone; cc/lib/listen_address.cc.

    By itself TensorFlow's server listens at its port on all addresses of the machine.

    Args:
        address: str, "host:port", what the cluster calls the server.
        at: str or None (default: the host of `address`): host name or address to listen at.

    Raises:
        ValueError: if that is no address of this machine, or it cannot be arranged.
    """
    host, port = address.rsplit(":", 1)
    host = at or host.strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        family, ip = found[0][0], found[0][4][0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((ip, 0))
    except OSError as error:
        raise ValueError(
            f"the server at {address} cannot listen at {host}, which must be of this machine: {error}"
        ) from error
    mapped = ip if family == socket.AF_INET6 else f"::ffff:{ip}"
    library = ctypes.CDLL(str(Path(tf_sparse_emb.gen_ops.__file__).with_name("_ops.so")))
    if library.SparseEmbListenAt(socket.inet_pton(socket.AF_INET6, mapped), int(port)) == 0:
        raise ValueError(
            f"the server at {address} cannot be made to listen at {host} alone: this TensorFlow has no call of bind"
        )
