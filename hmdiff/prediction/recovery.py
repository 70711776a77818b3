"""What is recovered from one person or hand in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hmdiff.kinds import Kind


@dataclass(frozen=True)
class Trace:
    """The reverse process of the first of the N chains, before each step that was taken.

    Root-relative metres; S steps. Empty (S = 0) for models without a diffusion.
    """

    k: NDArray  # (S,) int64, from K downwards
    h_k: NDArray  # (S, Vc, 3) float32 noisy coarse mesh
    h0_hat: NDArray  # (S, Vc, 3) float32 what g takes it for (Eq. 7)
    ratio: NDArray  # (S,) float32 R_k of Algorithm 1, NaN without guidance


@dataclass(frozen=True)
class Recovery:
    """A mesh, its N samples, and a camera that puts it on the picture.

    Lengths are float32 metres in the camera's axes (x right, y down, z forward), relative to the
    regressed root joint (pelvis or wrist) of each mesh itself; ``vertices + translation`` is in
    the camera frame. Vertex order and faces are SMPL's or MANO's.

    The camera is no measurement: it is fitted so that the mesh fills ``box``
    (:mod:`hmdiff.prediction.camera`), and its focal length is a guess unless it was given.
    """

    kind: Kind
    vertices: NDArray  # (V, 3) h_m, upsampled from the centre of the N chains
    joints: NDArray  # (J, 3) regressed from ``vertices``, in the order of ``kind.joints``
    samples: NDArray  # (N, V, 3) the chains, each upsampled
    samples_coarse: NDArray  # (N, Vc, 3) the chains as they came out of the reverse process
    spread: NDArray  # (V,) millimetres, root mean square distance of the samples from their mean
    faces: NDArray  # (F, 3) int64
    coarse_faces: NDArray  # (Fc, 3) int64, of the coarse mesh
    camera: NDArray  # (3, 3) float64 intrinsics of the full picture, pixels
    translation: NDArray  # (3,) float64 metres, the root joint in the camera frame
    box: NDArray  # (4,) float64 x, y, width, height: what the mesh was fitted to, pixels
    crop: NDArray  # (3,) float64 left, top, side of the square that the network saw, pixels
    image_size: tuple[int, int]  # width, height of the full picture, pixels
    active_steps: float  # steps with DAT, the mean over the chains
    ratio: float  # last R_k, the mean over the chains; NaN without guidance
    trace: Trace
    settings: dict[str, Any]  # model, steps, chains, seed and the like, for the record
