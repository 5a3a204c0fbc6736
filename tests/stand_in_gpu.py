"""A GPU that is not there: tensors on `cuda:0` are fake, without values, others are real; what a GPU would do is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# these only reserve memory, or look at it in another way
FREE = ("device", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh")
PADDINGS = ("reflection_pad2d", "replication_pad2d")


@dataclass
class Count:
    """What a GPU did.

    `kernels`: the names of what ran there. `conversions`: those before which PyTorch has to bring a tensor into another memory
    format. `uploads` and `downloads`: the shapes of what went from the CPU to the GPU and back, `sent` and `received`: its
    bytes. `waits`: the shapes of what went either way while the CPU waited for it, and for all that the GPU had to do before.
    """

    kernels: list[str] = field(default_factory=list)
    conversions: list[str] = field(default_factory=list)
    uploads: list[tuple[int, ...]] = field(default_factory=list)
    downloads: list[tuple[int, ...]] = field(default_factory=list)
    sent: int = 0
    received: int = 0
    waits: list[tuple[int, ...]] = field(default_factory=list)


class StandIn(TorchDispatchMode):
    """Runs what has a fake tensor in it as a GPU would, and counts it.

    What is copied to the CPU gets random values. A value that is read back, such as by `item()` or `if`, raises
    DataDependentOutputException; errors that are looked for, as in `linalg.solve`, and float64, which not all GPUs have, raise
    AssertionError.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = Count()

    def taken(self) -> Count:
        """What was counted since the last call."""
        count, self._count = self._count, Count()
        return count

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        inputs = tree_leaves((args, kwargs))
        if not any(isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in inputs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is not torch.ops.prim.device.default:
            with self:  # in inference mode, as in the nodes, operations come that are made of others
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        self._count_conversions(func, args)
        result = func(*args, **kwargs)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        tensors = [x for x in (*inputs, *outputs) if isinstance(x, Tensor)]
        on_gpu = [x for x in tensors if x.device.type == "cuda"]
        assert not any(x.dtype == torch.float64 for x in on_gpu), f"{func} computes in float64 on the GPU"
        name, returns = func._schema.name.partition("::")[2], func._schema.returns
        assert name != "_linalg_check_errors", "errors are looked for, and so the GPU is waited for"
        view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not on_gpu or view or name in FREE:
            return result
        arrives = bool(outputs) and outputs[0].device.type == "cpu"  # some return nothing
        # a number goes with the call of a kernel, but does not come back with it
        if others := [x for x in tensors if x.device.type == "cpu" and (x.ndim or arrives)]:
            if not (kwargs.get("non_blocking") or (name == "copy_" and True in args[2:])):
                self._count.waits.append(tuple(others[0].shape))
            if arrives:
                self._count.downloads.append(tuple(others[0].shape))
                self._count.received += others[0].nbytes
                with unset_fake_temporarily():
                    values = torch.rand(result.shape).to(result.dtype)
                    return args[0].copy_(values) if name == "copy_" else values
            self._count.uploads.append(tuple(others[0].shape))
            self._count.sent += others[0].nbytes
        else:
            self._count.kernels.append(name)
        return result

    def _count_conversions(self, func: Any, args: tuple) -> None:
        """The paddings of CUDA read and write `(B, C, H, W)` in this order, the convolutions of cuDNN what their kernel has."""
        name = func._schema.name.partition("::")[2]
        if name in PADDINGS and not args[0].is_contiguous():
            self._count.conversions.append(name)
        if name == "convolution":
            orders = torch.contiguous_format, torch.channels_last
            if not any(all(x.is_contiguous(memory_format=order) for x in args[:2]) for order in orders):
                self._count.conversions.append(name)


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """`cuda:0` as a fake inside, and what is counted there."""
    moved = mock.patch.object(nn.Module, "_apply", _apply)
    with moved, FakeTensorMode(allow_non_fake_inputs=True), StandIn() as counted:
        yield counted


def put_on_gpu(network: nn.Module) -> None:
    """Move a network for use."""
    network.to("cuda").requires_grad_(False)


def _apply(network: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`Module._apply` by new parameters: real ones cannot be exchanged for fake ones."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
    return network
