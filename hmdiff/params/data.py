"""Sections about data: stand-ins, data sets, preparation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hmdiff.params.base import Count, NotNegative, Positive, Section, Unit


class StandInParams(Section):
    train: Count
    test: Count
    yaw: Annotated[float, Field(ge=0, le=180)]
    workers: Count


class BodyStandInParams(StandInParams):
    val: Count
    frame: Annotated[int, Field(ge=64, le=2048)]
    frames: Count


class Human36MStandIn(BodyStandInParams):
    layout: Literal["human36m"]
    box: Annotated[float, Field(ge=1)]


class ThreeDPWStandIn(BodyStandInParams):
    layout: Literal["3dpw"]
    pairs: Unit
    occluders: Unit


class FreiHandStandIn(StandInParams):
    layout: Literal["freihand"]
    versions: Count
    occluders: Unit


class WildStandIn(Section):
    """Of the data sets that are only trained on."""

    layout: Literal["up3d", "muco", "coco", "mpii"]
    train: Count
    frame: Annotated[int, Field(ge=64, le=2048)]
    yaw: Annotated[float, Field(ge=0, le=180)]
    pairs: Unit
    workers: Count


AnyStandIn = Annotated[
    Human36MStandIn | ThreeDPWStandIn | FreiHandStandIn | WildStandIn,
    Field(discriminator="layout"),
]


class AcquireParams(Section):
    source: Literal["auto", "real", "rendered"]


class PrepareParams(Section):
    size: Annotated[int, Field(ge=32, le=1024)]
    quality: Annotated[int, Field(ge=1, le=100)]
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"]
    workers: Count
    skip_limit: Unit


class DatasetParams(Section):
    kind: Literal["body", "hand"]


class Human36MDataset(DatasetParams):
    layout: Literal["human36m"]
    kind: Literal["body"]
    crop: Positive
    frame_step: Count
    test_camera: Annotated[int, Field(ge=1, le=4)]
    val_subjects: tuple[Literal[1, 5, 6, 7, 8], ...]
    fit_limit: Positive

    @model_validator(mode="after")
    def _some_train(self) -> Human36MDataset:
        if len(set(self.val_subjects)) != len(self.val_subjects) or len(self.val_subjects) == 5:
            raise ValueError("val_subjects must be distinct and leave a training subject")
        return self


class ThreeDPWDataset(DatasetParams):
    layout: Literal["3dpw"]
    kind: Literal["body"]
    crop: Positive
    ground_truth: Literal["neutral", "gendered"]


class FreiHandDataset(DatasetParams):
    layout: Literal["freihand"]
    kind: Literal["hand"]
    crop: Positive
    held_out: Count


class WildDataset(DatasetParams):
    kind: Literal["body"]
    crop: Positive
    smallest_box: NotNegative


class UP3DDataset(WildDataset):
    layout: Literal["up3d"]


class MuCoDataset(WildDataset):
    layout: Literal["muco"]
    fit_limit: Positive


class CocoDataset(WildDataset):
    layout: Literal["coco"]
    keypoints: Annotated[int, Field(ge=0, le=17)]


class MPIIDataset(WildDataset):
    layout: Literal["mpii"]
    keypoints: Annotated[int, Field(ge=0, le=16)]


AnyDataset = Annotated[
    Human36MDataset
    | ThreeDPWDataset
    | FreiHandDataset
    | UP3DDataset
    | MuCoDataset
    | CocoDataset
    | MPIIDataset,
    Field(discriminator="layout"),
]
