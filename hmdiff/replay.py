"""Recording a function of tensors as a CUDA graph, and replaying it.

A GPU does the small kernels of g, and those of a CNN on one image, faster than a processor can
launch them. Recorded once, they are launched as one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

KEPT = 16  # recordings of one function; each keeps its memory

Outputs = tuple[Tensor, ...]


class Replayed:
    """``function(*tensors, **settings) -> tuple of tensors``, the same but faster on CUDA.

    The first call with new shapes or settings runs the function as it is, the second one records
    it, and all others replay the recording with their own numbers. On other devices, and where
    CUDA refuses to record, the function is always run as it is.

    The function must do the same operations whatever the numbers are: it may not look at one, nor
    copy between devices. What it reads besides its arguments (weights) must stay where it is in
    memory; its values may change. No gradient leaves it.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self.function = function
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._refused = False

    def __call__(self, *tensors: Tensor, **settings: Hashable) -> Outputs:
        if self._refused or not tensors or any(not tensor.is_cuda for tensor in tensors):
            return self.function(*tensors, **settings)
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key = (shapes, tuple(sorted(settings.items())))
        if key not in self._recordings:
            while len(self._recordings) >= KEPT:
                del self._recordings[next(iter(self._recordings))]
            # What is set up at the first call (libraries, work spaces) cannot be recorded.
            self._recordings[key] = None
            return self.function(*tensors, **settings)
        if self._recordings[key] is None:
            try:
                self._recordings[key] = _Recording(self.function, tensors, settings)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                print(f"CUDA graph: not recorded, run as it is ({reason})", file=sys.stderr)
                self._refused = True
                return self.function(*tensors, **settings)
        return self._recordings[key].replay(tensors)

    def __deepcopy__(self, memo: dict) -> Replayed:
        return Replayed(copy.deepcopy(self.function, memo))  # a recording belongs to one model


class _Recording:
    """One function on tensors of fixed shapes."""

    def __init__(
        self, function: Callable[..., Outputs], tensors: Outputs, settings: dict[str, Any]
    ) -> None:
        self.inputs = [tensor.clone() for tensor in tensors]
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            self.outputs = function(*self.inputs, **settings)

    def replay(self, tensors: Outputs) -> Outputs:
        for own, tensor in zip(self.inputs, tensors, strict=True):
            own.copy_(tensor)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)  # the next replay writes over them
