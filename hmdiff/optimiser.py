"""torch's optimisers without ``torch.compile``, which nothing here uses on them.

The first call of a method that torch marks as not for its compiler imports the compiler: two
seconds of processor time, half of a small training. ``inspect.unwrap`` gives the same methods
without the mark; what else ``step`` is wrapped in is that it takes no gradients.
"""

from __future__ import annotations

import inspect

import torch

_MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _eager(optimiser: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    methods = {name: inspect.unwrap(getattr(optimiser, name)) for name in _MARKED}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimiser.step))
    return type(optimiser.__name__, (optimiser,), methods)


AdamW = _eager(torch.optim.AdamW)
Adam = _eager(torch.optim.Adam)
