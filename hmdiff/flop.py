"""torch's counter of floating-point operations without ``torch.compile``, which nothing here uses.

torch marks the counter as not for its compiler, and the first operation that is counted imports the
compiler for that: half of the processor time of a small evaluation. ``inspect.unwrap`` takes the
mark off; what is counted, and how, is torch's own.
"""

from __future__ import annotations

import inspect

from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["FlopCounterMode"]

_mode = flop_counter._FlopCounterMode
_mode.__torch_dispatch__ = inspect.unwrap(_mode.__torch_dispatch__)
