"""Body and hand share one code path; this record is all that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Sizes and joint order of one mesh family.

    ``joints`` is the order of the J joints used everywhere in this project: by the prepared
    HDF5 files, by the heatmaps and the prior U, and by the mesh-to-pose function f (Sec. 4.2).
    """

    name: str
    model: str  # the smplx model type
    vertices: int  # full mesh
    faces: int
    coarse: int  # V, the vertices that are diffused (Sec. 5)
    joints: tuple[str, ...]
    root: int  # index into ``joints``; meshes and joints are expressed relative to it
    parameters: int  # axis-angle numbers in a pose, global orientation first

    @property
    def joint_count(self) -> int:
        return len(self.joints)


# Row order of METRO's J_regressor_h36m_correct.npy.
BODY = Kind(
    name="body",
    model="smpl",
    vertices=6890,
    faces=13776,
    coarse=431,
    joints=(
        "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck",
        "Nose", "Head", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
    ),
    root=0,
    parameters=72,
)  # fmt: skip

# FreiHAND's order.
HAND = Kind(
    name="hand",
    model="mano",
    vertices=778,
    faces=1538,
    coarse=195,
    joints=(
        "Wrist",
        *(f"{finger}_{i}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky")
          for i in (1, 2, 3, 4)),
    ),
    root=0,
    parameters=48,
)  # fmt: skip

# Bodies of SMPL; all have one topology and share the regressor of the scored joints.
GENDERS = ("neutral", "male", "female")

KINDS = {kind.name: kind for kind in (BODY, HAND)}
MODELS = {kind.model: kind for kind in (BODY, HAND)}
