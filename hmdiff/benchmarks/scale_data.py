"""Generated records of any number: tiny images in 3DPW's and in COCO's layout, stored features.

A record has a file of its own, but few files differ: the others are links to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import coco, threedpw
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.extractor.features import features_writer
from hmdiff.files import link_or_copy, write_json
from hmdiff.kinds import Kind
from hmdiff.params import Params

FRAME = 64  # pixels
FRAMES = 500  # of a sequence
BATCH = 32  # rows that extract_features hands to the writer at once; the preset paper's
DIFFERENT = 64  # images; a file system allows tens of thousands of links to each
DISTANCE = 3.0  # metres, of a person from the camera
# 3DPW's test set, of all records where those are 400,000.
TEST_SHARE = 35_515 / 400_000
VAL_SHARE = 0.01


def split_counts(count: int) -> dict[str, int]:
    """How many of ``count`` records are in each split."""
    test, val = round(count * TEST_SHARE), max(1, round(count * VAL_SHARE))
    return {"train": count - test - val, "val": val, "test": test}


def write_threedpw(root: Path, count: int, body: BodyModel, seed: int) -> None:
    """``count`` persons in ``count`` frames, and the manifest that acquire would write."""
    random, images = np.random.default_rng(seed), _images(root.with_name("images"), seed)
    intrinsics = np.array([[FRAME, 0, FRAME / 2], [0, FRAME, FRAME / 2], [0, 0, 1.0]])
    place = np.array([0.0, 0.0, DISTANCE])
    number = 0
    for folder, split in threedpw.FOLDERS.items():
        left = split_counts(count)[split]
        while left:
            frames, name = min(left, FRAMES), f"walk_{number:05d}"
            poses = random.normal(0, 0.2, (frames, body.kind.parameters))
            person = threedpw.Person(
                betas=random.normal(0, 1, 10),
                poses=poses,
                translations=np.tile(place, (frames, 1)),
                joints=random.uniform(-0.6, 0.6, (frames, 24, 3)) + place,
                valid=np.ones(frames, bool),
            )
            camera = threedpw.CameraTrack(intrinsics, np.tile(np.eye(4), (frames, 1, 1)))
            threedpw.write_sequence(root, folder, name, [person], camera)
            (root / threedpw.IMAGES / name).mkdir(parents=True)
            for frame in range(frames):
                link_or_copy(images[frame % len(images)], threedpw.image_path(root, name, frame))
            number, left = number + 1, left - frames
    write_json(root / "manifest.json", {"source": "rendered"})


def write_coco(root: Path, count: int, seed: int) -> None:
    """The annotations and fits of ``count`` persons, written as they are made; no images."""
    random = np.random.default_rng(seed)
    folder = root / coco.ANNOTATIONS
    folder.mkdir(parents=True)
    with (
        open(folder / coco.PEOPLE, "w", encoding="utf-8") as people,
        open(folder / coco.FITS[0], "w", encoding="utf-8") as fits,
    ):
        people.write('{"images": [')
        people.write(", ".join(map(json.dumps, _coco_images(count))))
        people.write('], "annotations": [')
        for number in range(1, count + 1):
            note = {"id": number, "image_id": number, "bbox": [16, 16, 32, 32], "iscrowd": 0,
                    "category_id": 1, "num_keypoints": 17}  # fmt: skip
            smpl = {name: random.normal(0, 0.2, size).round(6).tolist()
                    for name, size in (("pose", 72), ("shape", 10))}  # fmt: skip
            fit = {"smpl_param": {**smpl, "trans": [0.0, 0.0, DISTANCE]},
                   "cam_param": {"focal": [FRAME] * 2, "princpt": [FRAME / 2] * 2}}  # fmt: skip
            comma = ", " if number > 1 else ""
            people.write(comma + json.dumps(note))
            fits.write(("{" if number == 1 else ", ") + f'"{number}": {json.dumps(fit)}')
        people.write("]}")
        fits.write("}")


def _coco_images(count: int) -> Iterator[dict]:
    for number in range(1, count + 1):
        yield {"id": number, "file_name": f"{number:012d}.jpg", "width": FRAME, "height": FRAME}


def _images(folder: Path, seed: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.default_rng(seed), []
    for number in range(DIFFERENT):
        coarse = random.integers(0, 256, (8, 8, 3), np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(coarse).resize((FRAME, FRAME)).save(paths[-1], quality=90)
    return paths


def write_features(path: Path, prepared: Path, kind: Kind, params: Params) -> None:
    """Rows for all of ``prepared`` through extract_features' own writer, as that stage shapes them.

    What the networks would give is random, the same numbers in every batch; the true coarse
    meshes are too.
    """
    random, draws, joints = np.random.default_rng(params.seed), params.prior.draws, kind.joint_count
    with PreparedFile(prepared) as file:
        ids, count = file.sample_ids(), len(file)
        truth = {
            name: file.array(name) for name in ("joints", "valid_mesh", "valid_joints", "split")
        }
        attrs = {name: str(file.attrs[name]) for name in ("dataset", "kind", "source")}

    def numbers(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, (BATCH, *shape)).astype(np.float32)

    seen = {
        "image_feature": numbers(49, 128).astype(np.float16),
        "draws": numbers(draws, joints, 3),
        **{name: numbers(joints, 3) for name in ("centre", "peak", "spread")},
        "coarse": numbers(kind.coarse, 3),
    }
    with features_writer(path, count, attrs) as writer:
        for start in range(0, count, BATCH):
            rows = slice(start, min(start + BATCH, count))
            size = rows.stop - start
            writer.append(
                {
                    **{name: values[:size] for name, values in seen.items()},
                    **{name: values[rows] for name, values in truth.items()},
                    "copy": np.zeros(size, np.uint16),
                    "sample_id": ids[rows],
                }
            )


def write_joints(folder: Path, prepared: Path, seed: int) -> tuple[Path, Path]:
    """True joints (n, 17, 3) of ``prepared``, and predictions a few centimetres off: two .npz."""
    with PreparedFile(prepared) as file:
        truth, ids = file.array("joints"), np.array(file.sample_ids())
    noise = np.random.default_rng(seed).normal(0, 0.03, truth.shape).astype(np.float32)
    paths = folder / "truth.npz", folder / "predicted.npz"
    for path, joints in zip(paths, (truth, truth + noise), strict=True):
        np.savez(path, joints=joints, sample_id=ids)
    return paths
