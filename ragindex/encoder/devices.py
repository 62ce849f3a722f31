"""Where an encoder computes: the device, its number type, how much it takes at once, and the way of data to it."""

from __future__ import annotations

import numpy as np
import torch

from ragindex.errors import UsageError

__all__ = ["choose_device", "choose_dtype", "keep_freed_memory", "padded_tokens", "send"]

# Padded tokens in a batch: enough to be worth the calls, few enough for the caches of a CPU. A GPU wants many more.
_BUDGET = {"cpu": 2_048, "cuda": 65_536, "mps": 16_384}
_LARGEST_KEPT = 2**25 - 2**13  # bytes; glibc raises its limit to no more than 32 MiB


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the best there is. Raises UsageError for one that is not there."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"The device {name!r} cannot be used: torch knows none of that name.") from error
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 1):
        raise UsageError(f"The device {name!r} cannot be used: torch does not find it on this machine.")
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def padded_tokens(device: torch.device) -> int:
    """How many tokens, padding included, a batch on this device holds."""
    return _BUDGET.get(device.type, _BUDGET["cpu"])


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of `array` on the device; on a GPU it travels while the program goes on."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of large blocks that are freed, up to 64 MiB, for the next ones.

    glibc gives them back to the system, and every layer would fetch its memory anew, a page fault for each 4 KiB: a
    tenth to a quarter of an encoder's time. It changes its mind when a large block is freed (the dynamic threshold of
    `mallopt(3)`), so one is. Nothing is written to it, hence no memory is used.
    """
    torch.empty(_LARGEST_KEPT, dtype=torch.uint8)
