"""Tensors of files, in memory as PyTorch lays out its own."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each copied into memory of its own, on the CPU.

    `load_file` gives views of the mapped file, which begin wherever they stand in it; kernels for
    matrix products go by that, and round otherwise. A run that goes on from files would then not
    end with the bits of one that never stopped. Raises SafetensorError.
    """
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
