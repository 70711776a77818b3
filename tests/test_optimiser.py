"""Optimisers and a counter of operations that leave torch's compiler alone and change no number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hmdiff import optimiser


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_an_optimiser_steps_as_torchs_own(name):
    weights, states = [], []
    for module in (torch.optim, optimiser):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        chosen = getattr(module, name)([weight], lr=0.1)
        for _ in range(3):
            chosen.zero_grad()
            weight.square().sum().backward()
            chosen.step()
        weights.append(weight.detach())
        states.append(chosen.state_dict())
    assert torch.equal(*weights)
    assert states[0]["param_groups"] == states[1]["param_groups"]


def test_a_step_does_not_import_torchs_compiler():
    code = (
        "import sys, torch; from hmdiff.optimiser import AdamW;"
        "w = torch.nn.Parameter(torch.ones(2)); o = AdamW([w]); o.zero_grad();"
        "w.sum().backward(); o.step(); o.load_state_dict(o.state_dict());"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operations_are_counted_without_torchs_compiler():
    """One process, for another one's import would hide it: two products, and one's gradients."""
    code = (
        "import sys, torch; from hmdiff.flop import FlopCounterMode;"
        "a = torch.ones(2, 3, requires_grad=True); b = torch.ones(3, 5);\n"
        "with FlopCounterMode(display=False) as counter:\n"
        "    (a @ b).sum().backward()\n"
        "    with torch.inference_mode(): torch.nn.functional.linear(a, b.T)\n"
        "assert counter.get_total_flops() == 3 * 2 * (2 * 3 * 5)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
