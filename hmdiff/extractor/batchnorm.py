"""BatchNorm over the images of all processes: a batch that is shared keeps its own statistics.

torch's SyncBatchNorm does the same on GPUs and refuses the CPU.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hmdiff.distributed import process_count, summed


def shared_statistics() -> contextlib.AbstractContextManager:
    """Inside, each BatchNorm that trains takes mean and variance over all processes.

    Every process must come by the same layers. With one process, nothing changes.
    """
    return _SharedStatistics() if process_count() > 1 else contextlib.nullcontext()


class _SharedStatistics(TorchFunctionMode):
    """Stands in for ``functional.batch_norm``, which the layers of torch and of timm all call."""

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs or {})
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, False, momentum, eps
        )
    output, mean, var, count = _Normalise.apply(input, eps)
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
    shape = (1, -1, *[1] * (input.dim() - 2))
    if weight is not None:
        output = output * weight.view(shape) + bias.view(shape)
    return output.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """(B, C, ...) of each process -> the same with mean 0 and variance 1, at least in float32, and
    what was taken off: mean, variance (C,) and count, of all processes."""

    @staticmethod
    def forward(ctx, input: Tensor, eps: float):
        dims, shape = _layout(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.new_tensor([values.numel() // values.shape[1]])
        total = summed(torch.cat([values.sum(dims), count]))
        count = total[-1]
        mean = total[:-1] / count
        centred = values - mean.view(shape)
        # From the centred values: a difference of large sums would lose the digits.
        var = summed(centred.square().sum(dims)) / count
        scale = (var + eps).rsqrt()
        normal = centred * scale.view(shape)
        ctx.save_for_backward(normal, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return normal, mean, var, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor):
        normal, scale, count = ctx.saved_tensors
        dims, shape = _layout(normal)
        sums = torch.stack([gradient.sum(dims), (gradient * normal).sum(dims)])
        along, across = (summed(sums) / count).unbind()
        rest = gradient - along.view(shape) - normal * across.view(shape)
        return rest * scale.view(shape), None


def _layout(values: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """All dimensions but the channels', and the channels' shape among them."""
    return [0, *range(2, values.dim())], (1, -1, *[1] * (values.dim() - 2))
