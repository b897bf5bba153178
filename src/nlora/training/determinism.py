"""The same numbers from the same run, on a GPU too.

Many CUDA kernels add up in an order that changes from run to run. Where a deterministic one exists
PyTorch takes it when it is told to; an operation that has none is an error then.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nlora.errors import NloraError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Deterministic kernels only, if `wanted`; afterwards as before.

    Raises NloraError for an operation that has none.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(CUBLAS, ":4096:8")  # PyTorch asks for it; read at the first product
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    # Without warn_only: with it, memory-efficient attention stays as it is.
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "determinis" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise NloraError(f"setting deterministic: {reason}") from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
