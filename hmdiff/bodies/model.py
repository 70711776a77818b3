"""SMPL and MANO as one thing: poses and betas in, vertices and joints out, through smplx."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import smplx
import torch
from smplx.utils import Struct

from hmdiff.bodies.model_files import read_folder
from hmdiff.kinds import Kind

_CHUNK = 64  # meshes a forward pass; bounds the memory


class BodyModel:
    """A body or hand model with the joint regressor by which it is scored.

    Attributes:
        kind: body or hand.
        source: "stand-in" or "licensed".
        faces: (F, 3) int64 numpy.
        regressor: (J, V) float32, rows in the order of ``kind.joints``; they act on vertices.
        template: (V, 3) float32 mean shape in the rest pose, metres.
        pose_mean: (P,) float32; what the model itself adds to a pose (MANO's ``hands_mean``).
        parents: (24,) or (16,) int64 numpy, the kinematic tree, -1 for the root.
    """

    def __init__(
        self, kind: Kind, layer: smplx.SMPL, regressor: np.ndarray, source: str, folder: Path
    ):
        self.kind = kind
        self.source = source
        self._folder = folder
        self._genders: dict[str, BodyModel] = {"neutral": self}
        self._layer = layer.eval().requires_grad_(False)
        self.regressor = torch.as_tensor(regressor, dtype=torch.float32, device=self.device)
        self.faces = np.asarray(layer.faces).astype(np.int64)
        self.template: torch.Tensor = layer.v_template
        self.parents = layer.parents.cpu().numpy()
        mean = getattr(layer, "pose_mean", None)
        self.pose_mean = torch.zeros(kind.parameters, device=self.device) if mean is None else mean

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "cpu", gender: str = "neutral"
    ) -> BodyModel:
        """Read a folder that the stage ``body_models`` wrote.

        Raises:
            UserError: a file of it is missing or damaged, or it has no model of this gender.
        """
        kind, arrays, regressor, facts = read_folder(Path(folder), gender)
        options = {"data_struct": Struct(**arrays), "model_path": "", "create_transl": False}
        with contextlib.redirect_stdout(io.StringIO()):  # smplx prints that there are 10 betas
            if kind.model == "mano":
                layer = smplx.MANO(**options, use_pca=False, flat_hand_mean=False)
            else:
                layer = smplx.SMPL(**options)
        return cls(kind, layer.to(device), regressor, facts["source"], Path(folder))

    def of_gender(self, gender: str) -> BodyModel:
        """The model of ``gender`` (hmdiff.kinds.GENDERS) beside this neutral one, loaded once.

        Raises:
            UserError: the folder has no such model.
        """
        if gender not in self._genders:
            self._genders[gender] = BodyModel.load(self._folder, self.device, gender)
        return self._genders[gender]

    @property
    def device(self) -> torch.device:
        return self._layer.v_template.device

    def vertices(self, pose: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        """Vertices (n, V, 3), metres, in the frame of the global orientation, not translated.

        Args:
            pose: (n, P) axis-angle radians, global orientation first.
            betas: (n, 10).
        """
        return self._forward(pose, betas)[0]

    def kinematic(self, pose: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        """Joints of the kinematic tree (n, 24 or 16, 3); not those that are scored."""
        return self._forward(pose, betas)[1]

    def joints(self, vertices: torch.Tensor) -> torch.Tensor:
        """Scored joints (n, J, 3) of meshes (n, V, 3): f of Sec. 4.2 on the full mesh."""
        return torch.einsum("jv,nvc->njc", self.regressor, vertices)

    def root_relative(self, vertices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Meshes (n, V, 3) minus their own root joint, and that joint (n, 1, 3)."""
        root = torch.einsum("v,nvc->nc", self.regressor[self.kind.root], vertices)[:, None]
        return vertices - root, root

    @torch.no_grad()
    def _forward(
        self, pose: torch.Tensor, betas: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        name = "hand_pose" if self.kind.model == "mano" else "body_pose"
        vertices, joints = [], []
        for start in range(0, len(pose), _CHUNK):
            part = pose[start : start + _CHUNK].to(self.device, torch.float32)
            output = self._layer(
                betas=betas[start : start + _CHUNK].to(self.device, torch.float32),
                global_orient=part[:, :3],
                **{name: part[:, 3:]},
            )
            vertices.append(output.vertices)
            joints.append(output.joints[:, : self.kind.parameters // 3])
        if not vertices:
            empty = torch.zeros(0, 1, 3, device=self.device)
            count = self.kind.parameters // 3
            return empty.expand(0, self.kind.vertices, 3), empty.expand(0, count, 3)
        return torch.cat(vertices), torch.cat(joints)
