"""What this machine computes with."""

from typing import Any


def bf16_is_faster() -> bool:
    """Whether this machine multiplies bf16 matrices faster than fp32 ones."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def device() -> Any:
    """Where models run: the first CUDA device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
