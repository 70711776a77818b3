"""Where torch would compute. The only check that imports torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from hmdiff.doctor.findings import Context, Finding
from hmdiff.params import load_params

LARGE = "hrnet"  # backbones that nobody trains without a GPU


def device(context: Context) -> Iterator[Finding]:
    """``compute.device`` and ``compute.precision`` on this machine."""
    import torch

    from hmdiff.compute import resolve_device

    params = load_params(context.params)
    chosen = resolve_device(params.compute.device)
    if chosen.type == "cuda":
        yield _cuda(chosen, params.compute.precision != "fp32")
        return
    found = f"{chosen} (compute.device: {params.compute.device}); torch {torch.__version__}"
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        remedy = (
            f"torch was built for CUDA {torch.version.cuda}: update the driver"
            if torch.version.cuda
            else "`make setup` on this machine: the torch that is installed is for CPUs only"
        )
        yield Finding("warning", f"{found}; nvidia-smi is there, but torch sees no GPU", remedy)
    elif any(extractor.backbone.startswith(LARGE) for extractor in params.extractor.values()):
        remedy = "a machine with a GPU, or `hmdiff preset default`"
        yield Finding("warning", f"{found}; too slow for preset {params.preset}", remedy)
    else:
        yield Finding("ok", f"{found}; enough for the presets default and smoke")


def _cuda(chosen, bf16: bool) -> Finding:
    import torch

    facts = torch.cuda.get_device_properties(chosen)
    found = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, torch {torch.__version__}"
    # Without emulation, which PyTorch counts as support and which is slower than fp32.
    if bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("warning", f"{found}; no bf16", "compute.precision: fp32 in params.yaml")
    return Finding("ok", found + ("; bf16" if bf16 else ""))
