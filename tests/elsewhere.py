"""A device that is not the CPU, for machines without one: what mixes devices by mistake fails as on a GPU.

Tensors that are moved to :data:`DEVICE` compute on the CPU, but say that they lie elsewhere, refuse to meet tensors of
the CPU, and have no ``numpy()``. What would make the host wait for a GPU is written down in :data:`WAITS`. Kernels,
precision and speed of a GPU cannot be seen so, and compiled or forward-mode code does not run here:
``tests/test_gpu.py`` is for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the one device type that needs no hardware and that autograd knows
HOST_INDEX = ("aten.index.", "aten.index_put", "aten._to_copy", "aten.copy_")  # these take tensors of both
READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select")
WAITS: list[str] = []


class There(Tensor):
    """A tensor elsewhere."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        there: There = Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        there.here = here
        return there

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor of another device to numpy: use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, There) for x in tensors)
    here = any(not isinstance(x, There) and x.dim() for x in tensors)
    if there and here and not str(func).startswith(HOST_INDEX):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    if there and str(func).startswith(READS):
        WAITS.append(str(func))
    if "device" in kwargs and kwargs["device"] is not None:
        goes_there = torch.device(kwargs["device"]) == DEVICE
        if tensors and goes_there != there and not kwargs.get("non_blocking"):
            WAITS.append(f"{func} to {kwargs['device']}")
        there = goes_there
        kwargs = kwargs | {"device": torch.device("cpu")}
    with _disable_current_modes():
        out = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if func._schema.name.endswith("_") and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(_there, out) if there else out


def _here(x: Any) -> Any:
    return x.here if isinstance(x, There) else x


def _there(x: Any) -> Any:
    return There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x


class _Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Nothing to set up."""


def strategy() -> SingleDeviceStrategy:
    """For Lightning's Trainer: one device, elsewhere."""
    return SingleDeviceStrategy(device=DEVICE, accelerator=_Accelerator())


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, :data:`DEVICE` is a device that computes."""
    autocast, tensor, as_tensor = torch.autocast, torch.tensor, torch.as_tensor

    def cast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **kwargs)

    def placed(make: Callable[..., Tensor]) -> Callable[..., Tensor]:  # constructors from host data are not dispatched
        def call(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made = make(data, *args, **kwargs)
            return made if device is None else made.to(device)

        return call

    with monkeypatch.context() as patch, _Elsewhere():
        patch.setattr(torch, "autocast", cast)
        patch.setattr(torch.amp, "autocast", cast)
        patch.setattr(torch, "tensor", placed(tensor))
        patch.setattr(torch, "as_tensor", placed(as_tensor))
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
