"""timm without ``torch.compile``, which nothing here uses on its networks.

torchvision's operators and one network of timm import the compiler while they are imported
themselves: three seconds of processor time, most of what timm takes.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

_ASKED = "torch._dynamo.utils"  # by torchvision, at import, for one function


def import_timm() -> ModuleType:
    """timm; where the compiler is not loaded yet, neither is it afterwards."""
    # It warns of a classifier that a backbone leaves out; of what one lacks we make an error.
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    if "torch._dynamo" in sys.modules or "timm" in sys.modules:
        return importlib.import_module("timm")
    asked = ModuleType(_ASKED)
    asked.is_compile_supported = _is_compile_supported
    disable = torch.compiler.disable
    sys.modules[_ASKED] = asked
    torch.compiler.disable = _unmarked
    try:
        return importlib.import_module("timm")
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_ASKED) is asked:
            del sys.modules[_ASKED]


def _is_compile_supported(device: str) -> bool:
    """torch's own answer, for which the compiler is loaded when somebody asks."""
    return importlib.import_module(_ASKED).is_compile_supported(device)


def _unmarked(function: Callable | None = None, *_: Any, **__: Any) -> Callable:
    """``torch.compiler.disable`` for what is never compiled: the function itself."""
    return (lambda decorated: decorated) if function is None else function
