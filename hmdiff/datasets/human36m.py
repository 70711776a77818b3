"""Human3.6M as I2L-MeshNet and Pose2Mesh redistribute it: COCO-like JSON, frames as JPEG.

``annotations/Human36M_subject{S}_{data,camera,joint_3d}.json`` for every subject, fits of SMPL in
``..._SMPL_NeuralAnnot.json`` or ``..._smpl_param.json`` for the training subjects, and
``images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg`` (file numbers count
from 1, ``frame_idx`` from 0). Joints are those of motion capture, millimetres, world frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.camera import body_to_camera, intrinsics, to_camera
from hmdiff.datasets.fitted import DAMAGE, below, first_present
from hmdiff.datasets.meshes import RestRoot
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.streaming import Index, entries, members
from hmdiff.errors import UserError
from hmdiff.files import read_json, write_text
from hmdiff.kinds import BODY
from hmdiff.params.data import Human36MDataset

TRAIN_SUBJECTS, TEST_SUBJECTS = (1, 5, 6, 7, 8), (9, 11)
ANNOTATIONS, IMAGES = "annotations", "images"
FITS = ("SMPL_NeuralAnnot", "smpl_param")  # the first that is there is taken

# The 17 joints of `joint_3d`, in the file's order, by their names in Kind.joints: the redistributed
# order happens to be the row order of METRO's regressor.
JOINTS = (
    "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck",
    "Nose", "Head", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
)  # fmt: skip
TO_KIND = tuple(JOINTS.index(name) for name in BODY.joints)

PARTS = {"R": (3, 3), "t": (3,), "f": (2,), "c": (2,)}  # of a camera
FAR_SHAPE = 3.0  # a fit with a larger |beta| is given the mean shape, as in I2L-MeshNet


@dataclass(frozen=True)
class Camera:
    """One of the four cameras; millimetres, as stored."""

    rotation: np.ndarray  # (3, 3) world to camera
    translation: np.ndarray  # (3,) mm
    focal: np.ndarray  # (2,) px
    centre: np.ndarray  # (2,) px


@dataclass(frozen=True)
class Frame:
    """One instant of one sub-action, seen by all cameras."""

    action: int  # 2..16
    subaction: int  # 1 or 2
    index: int  # 0, 1, ... at 50 Hz
    joints: np.ndarray  # (17, 3) mm, world frame, order of JOINTS
    fit: dict[str, np.ndarray] | None  # pose (72,), shape (10,), trans (3,) m, world frame


@dataclass(frozen=True)
class View:
    """One image of a frame."""

    frame: Frame
    camera: int  # 1..4
    bbox: np.ndarray  # (4,) x, y, width, height
    size: tuple[int, int]  # width, height


def image_name(subject: int, action: int, subaction: int, camera: int, index: int) -> str:
    """Path of an image below ``images/``."""
    folder = f"s_{subject:02d}_act_{action:02d}_subact_{subaction:02d}_ca_{camera:02d}"
    return f"{folder}/{folder}_{index + 1:06d}.jpg"


def write_subject(
    root: Path, subject: int, cameras: dict[int, Camera], views: Sequence[View]
) -> None:
    """Write the annotation files of one subject; the images are the caller's."""
    images, annotations = [], []
    joints: dict[str, Any] = {}
    fits: dict[str, Any] = {}
    for number, view in enumerate(views):
        frame = view.frame
        place = (subject, frame.action, frame.subaction, view.camera, frame.index)
        images.append(
            {
                "id": subject * 10_000_000 + number,
                "file_name": image_name(*place),
                "width": view.size[0],
                "height": view.size[1],
                "subject": subject,
                "action_idx": frame.action,
                "subaction_idx": frame.subaction,
                "cam_idx": view.camera,
                "frame_idx": frame.index,
            }
        )
        annotations.append(
            {"id": images[-1]["id"], "image_id": images[-1]["id"], "bbox": view.bbox.tolist()}
        )
        _nest(joints, frame)[str(frame.index)] = frame.joints.tolist()
        if frame.fit is not None:
            fit = {key: np.asarray(value).tolist() for key, value in frame.fit.items()}
            _nest(fits, frame)[str(frame.index)] = fit
    stored = {
        str(number): {
            "R": camera.rotation.tolist(),
            "t": camera.translation.tolist(),
            "f": camera.focal.tolist(),
            "c": camera.centre.tolist(),
        }
        for number, camera in cameras.items()
    }
    _write(root, subject, "data", {"images": images, "annotations": annotations})
    _write(root, subject, "camera", stored)
    _write(root, subject, "joint_3d", joints)
    if subject in TRAIN_SUBJECTS:
        _write(root, subject, FITS[0], fits)


def read(root: Path, body: BodyModel, params: Human36MDataset) -> Iterator[Sample]:
    """Every ``frame_step``-th frame: all cameras in training, ``test_camera`` alone in testing.

    Protocol P2: test subjects carry motion capture joints and no mesh. ``val_subjects`` are taken
    out of the training subjects.

    Raises:
        UserError: a file or a key is missing.
    """
    rest_root = RestRoot(body)
    for subject in (*TRAIN_SUBJECTS, *TEST_SUBJECTS):
        split = "val" if subject in params.val_subjects else "train"
        if subject in TEST_SUBJECTS:
            split = "test"
        yield from _read_subject(root, subject, split, rest_root, params)


def _read_subject(
    root: Path, subject: int, split: str, rest_root: RestRoot, params: Human36MDataset
) -> Iterator[Sample]:
    path = _path(root, subject, "data")
    stored = read_json(_path(root, subject, "camera"))
    joints_path = _path(root, subject, "joint_3d")
    fits_path = path if split == "test" else _fits_path(root, subject)
    step = params.frame_step
    try:
        cameras = {
            int(number): Camera(
                *(np.array(value[key], float).reshape(shape) for key, shape in PARTS.items())
            )
            for number, value in stored.items()
        }
        with (
            Index(
                path, ((note["image_id"], note["bbox"]) for note in entries(path, "annotations"))
            ) as boxes,
            Index(joints_path, _frames(joints_path, step)) as joints,
            Index(fits_path, () if split == "test" else _frames(fits_path, step)) as fits,
        ):
            for image in entries(path, "images"):
                number, index = image["cam_idx"], image["frame_idx"]
                if index % step or (split == "test" and number != params.test_camera):
                    continue
                key = _key(image["action_idx"], image["subaction_idx"], index)
                camera = cameras[number]
                world = np.array(joints.get(key), float).reshape(len(JOINTS), 3)
                fit = fits.get(key)
                yield Sample(
                    sample_id=Path(image["file_name"]).stem,
                    image=below(root / IMAGES, image["file_name"]),
                    split=split,
                    bbox=np.array(boxes.get(image["id"]), float).reshape(4),
                    camera=intrinsics(camera.focal, camera.centre),
                    joints=to_camera(world, camera.rotation, camera.translation)[list(TO_KIND)]
                    / 1000,
                    fit_limit=params.fit_limit / 1000,
                    **({} if fit is None else _fit_to_camera(fit, camera, rest_root)),
                )
    except DAMAGE as error:
        raise UserError(
            f"{path}: the subject's annotation files lack {error} or disagree; put them back"
        ) from None


def _frames(path: Path, step: int) -> Iterator[tuple[str, Any]]:
    """Key and value of every ``step``-th frame of a file nested by action, sub-action and frame."""
    for action, subactions in members(path):
        for subaction, frames in subactions.items():
            for index, value in frames.items():
                if int(index) % step == 0:
                    yield _key(action, subaction, index), value


def _key(action: Any, subaction: Any, index: Any) -> str:
    return f"{action}/{subaction}/{index}"


def _fit_to_camera(
    fit: dict[str, Any], camera: Camera, rest_root: RestRoot
) -> dict[str, np.ndarray]:
    pose = np.array(fit["pose"], float).reshape(1, 72)
    betas = np.array(fit["shape"], float).reshape(10)
    if np.abs(betas).max() > FAR_SHAPE:
        betas = np.zeros(10)
    moved, translation = body_to_camera(
        pose,
        np.array(fit["trans"], float).reshape(1, 3),
        rest_root(betas),
        camera.rotation,
        camera.translation / 1000,
    )
    return {"pose": moved[0], "betas": betas, "translation": translation[0]}


def fit_names(root: Path) -> tuple[str, ...]:
    """Which of ``FITS`` are taken for the training subjects, without repetition."""
    return tuple(
        dict.fromkeys(
            _fits_path(root, subject).stem.partition("_subject")[2].partition("_")[2]
            for subject in TRAIN_SUBJECTS
        )
    )


def _fits_path(root: Path, subject: int) -> Path:
    names = [_path(root, subject, name).name for name in FITS]
    return first_present(root / ANNOTATIONS, names)


def _path(root: Path, subject: int, part: str) -> Path:
    return root / ANNOTATIONS / f"Human36M_subject{subject}_{part}.json"


def _write(root: Path, subject: int, part: str, value: Any) -> None:
    write_text(_path(root, subject, part), json.dumps(value))


def _nest(tree: dict[str, Any], frame: Frame) -> dict[str, Any]:
    return tree.setdefault(str(frame.action), {}).setdefault(str(frame.subaction), {})
