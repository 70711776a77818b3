"""hmdiff predict and hmdiff.load: a user's pictures to meshes, overlays and numbers on disk."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from doc_commands import blocks
from PIL import Image
from toy_project import make_picture, write_project

import hmdiff
from hmdiff import cli
from hmdiff.datasets.camera import project, tight_box
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.prediction import model
from hmdiff.prediction.camera import fit_translation, full_camera
from hmdiff.prediction.inputs import find_sources, parse_box, pictures, read_detections
from hmdiff.prediction.model import Recoverer, find_checkpoint
from hmdiff.prediction.output import TO_VIEWER
from hmdiff.prediction.overlay import thumbnail
from hmdiff.prediction.run import Options, predict


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def recoverer(toy) -> Recoverer:
    return hmdiff.load(toy / "models/train/hand")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "more/c.png")):
        make_picture(seed=seed).save(folder / name)
    return folder


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, hmdiff; hmdiff.load; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("focal", [150.0, 400.0, 3000.0])
@pytest.mark.parametrize("box", [(10, 20, 60, 100), (300, -20, 200, 90)])
def test_the_camera_makes_the_mesh_fill_its_box(focal, box):
    mesh = np.random.default_rng(1).normal(size=(50, 3)) * (0.2, 0.4, 0.1)
    camera = full_camera((640, 480), focal / 800)
    assert camera[0, 0] == pytest.approx(focal)
    translation = fit_translation(mesh, np.array(box, float), camera)
    found = tight_box(project(mesh + translation, camera))
    assert max(found[2:]) == pytest.approx(max(box[2:]), rel=1e-3)
    centre = np.array(box[:2]) + np.array(box[2:]) / 2
    assert found[:2] + found[2:] / 2 == pytest.approx(centre, abs=0.05)


def test_the_camera_finds_the_true_translation_of_a_known_one():
    mesh = np.random.default_rng(2).normal(size=(50, 3)) * (0.2, 0.5, 0.15)
    camera, true = full_camera((640, 480), 1.0), np.array([0.3, -0.2, 4.0])
    box = tight_box(project(mesh + true, camera))
    assert fit_translation(mesh, box, camera) == pytest.approx(true, abs=2e-3)


def test_a_box_that_no_camera_can_fill_is_one_line():
    mesh = np.array([[-1, 0, 0], [1, 0, 0], [0, 0.1, 3.0], [0, 0, -3.0]])
    with pytest.raises(UserError, match="longer focal length"):
        fit_translation(mesh, np.array([0, 0, 1e6, 1e6]), full_camera((10, 10), 1.0))


def test_a_recovery_has_the_documented_shapes_and_meanings(recoverer):
    found = recoverer.predict(make_picture(), bbox=(20, 10, 60, 50))
    chains = recoverer.params.reverse.chains
    assert found.vertices.shape == (778, 3) and found.joints.shape == (21, 3)
    assert found.samples.shape == (chains, 778, 3)
    assert found.samples_coarse.shape == (chains, 195, 3)
    assert found.joints[0] == pytest.approx(np.zeros(3), abs=1e-5)
    assert found.samples.mean(0) == pytest.approx(found.vertices, abs=1e-4)
    distance = np.linalg.norm(found.samples - found.samples.mean(0), axis=-1)
    assert found.spread == pytest.approx(1000 * np.sqrt((distance**2).mean(0)), rel=1e-3)
    assert found.spread.min() > 0
    assert found.trace.k[0] == 50 and found.trace.h_k.shape == (3, 195, 3)
    assert found.trace.ratio[0] == pytest.approx(1)
    assert found.crop.tolist() == [50 - 43.5, 35 - 43.5, 87]  # 1.45 times the longer side
    box = tight_box(project(found.vertices + found.translation, found.camera))
    assert max(box[2:]) == pytest.approx(60, rel=1e-3)


def test_a_recovery_depends_neither_on_its_batch_nor_on_how_the_picture_is_given(
    recoverer, tmp_path
):
    picture, other = make_picture(), make_picture(seed=1)
    picture.save(tmp_path / "p.png")
    alone = recoverer.predict(tmp_path / "p.png")
    assert np.array_equal(recoverer.predict(np.asarray(picture)).vertices, alone.vertices)
    both = recoverer.predict_many([other, picture], [None, None])
    assert both[1].vertices == pytest.approx(alone.vertices, abs=1e-4)
    assert np.abs(both[0].vertices - alone.vertices).max() > 1e-3


def test_a_photograph_that_was_held_upright_is_read_upright(recoverer, tmp_path):
    picture = make_picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    found = recoverer.predict(tmp_path / "turned.png")
    assert found.image_size == (90, 120)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(found.vertices, recoverer.predict(upright).vertices)


def test_without_a_box_the_whole_picture_is_the_crop(recoverer):
    found = recoverer.predict(make_picture(120, 90))
    assert found.crop.tolist() == [0, -15, 120]
    assert found.box == pytest.approx([60 - 60 / 1.45, 45 - 60 / 1.45, 120 / 1.45, 120 / 1.45])


def test_a_linear_model_has_one_sample_and_no_reverse_process(toy):
    found = hmdiff.load(toy / "models/train/hand_linear").predict(make_picture())
    assert len(found.samples) == 1 and found.trace.h_k.shape == (0, 195, 3)
    assert (found.spread == 0).all() and np.isnan(found.ratio)


def test_a_cell_of_the_contact_sheet_shows_the_person_as_far_as_the_picture_goes():
    picture = Image.new("RGB", (400, 300))
    picture.paste((255, 0, 0), (0, 100, 80, 200))
    cell = thumbnail(picture, np.array([-20, 100, 100]))
    assert cell.size == (202, 252)  # 80 x 100, as large as a cell
    assert (np.asarray(cell) == (255, 0, 0)).all()


def test_a_body_goes_the_same_way_and_the_documented_example_runs(tmp_path, monkeypatch, capsys):
    project = write_project(tmp_path / "project", BODY)
    make_picture(800, 900).save(project / "photo.jpg")
    monkeypatch.chdir(project)
    (block,) = [block for block in blocks("python") if block.page == "your_pictures.md"]
    names: dict = {}
    exec(compile(block.text, block.page, "exec"), names)
    assert "(6890, 3)" in capsys.readouterr().out
    predict(names["recoverer"], [Path("photo.jpg")], Options(Path("predictions"), [9, 9, 99, 250]))
    with np.load("predictions/photo/prediction.npz", allow_pickle=False) as stored:
        assert stored["samples"].shape[1:] == (6890, 3)
        assert list(stored["joint_names"]) == list(BODY.joints)
        assert stored["faces"].shape == (13776, 3)


def test_a_folder_gives_complete_outputs_and_a_second_run_does_nothing(recoverer, folder, tmp_path):
    out = folder / "predictions"  # inside the input: it must not be read as pictures
    options = Options(out=out, formats=("glb", "obj", "ply"), batch=2)
    first = predict(recoverer, [folder], options)
    assert sorted(first.written) == ["a", "b", "more/c"] and not first.failed
    for name in first.written:
        files = {path.name for path in (out / name).iterdir()}
        assert files == {"overlay.png", "mesh.glb", "mesh.obj", "mesh.ply", "prediction.npz",
                         "viewer.html", "record.json"}  # fmt: skip
        assert Image.open(out / name / "overlay.png").size == (120, 90)
    assert Image.open(out / "contact_sheet.jpg").size == (3 * 256, 276)
    before = (out / "a/prediction.npz").stat().st_mtime_ns
    again = predict(recoverer, [folder], options)
    assert again.written == [] and len(again.skipped) == 3
    assert (out / "a/prediction.npz").stat().st_mtime_ns == before
    assert [source.name for source in find_sources([folder])] == first.written
    sheet = out / "contact_sheet.jpg"
    sheet.unlink()  # as if the first run had been stopped before it
    predict(recoverer, [folder], options)
    assert sheet.exists()
    changed = predict(recoverer, [folder], dataclasses.replace(options, bbox=(5, 5, 50, 50)))
    assert len(changed.written) == 3 and not list(out.rglob("*.partial"))


def test_mesh_files_keep_vertices_faces_and_their_order(recoverer, folder, tmp_path):
    predict(recoverer, [folder / "a.png"], Options(out=tmp_path, formats=("glb", "obj", "ply")))
    with np.load(tmp_path / "a/prediction.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    assert arrays["vertices"].shape == (778, 3) and "fitted" in str(arrays["camera_source"])
    for name in ("glb", "obj", "ply"):
        mesh = trimesh.load(tmp_path / f"a/mesh.{name}", process=False, force="mesh")
        assert np.array_equal(mesh.faces, arrays["faces"]), name
        assert mesh.vertices == pytest.approx(arrays["vertices"] * TO_VIEWER, abs=1e-6), name
        assert len(np.unique(mesh.visual.vertex_colors, axis=0)) > 10, name


def test_a_broken_picture_is_reported_and_the_others_are_done(recoverer, folder, tmp_path, capsys):
    (folder / "broken.jpg").write_bytes(b"no image")
    outcome = predict(recoverer, [folder], Options(out=tmp_path / "out", viewer=False))
    assert len(outcome.written) == 3
    assert len(outcome.failed) == 1 and "broken.jpg: not a readable image" in outcome.failed[0]
    assert "broken.jpg" in capsys.readouterr().err


def test_a_person_that_cannot_be_recovered_is_reported_and_the_others_are_done(
    recoverer, folder, tmp_path, monkeypatch
):
    def fail(vertices, box, camera):
        if box[2] == 41:
            raise UserError("box 1,1,41,9: no camera")
        return fit_translation(vertices, box, camera)

    monkeypatch.setattr(model, "fit_translation", fail)
    boxes = {"a": [(1, 1, 30, 9), (1, 1, 41, 9)], "b": [(1, 1, 50, 9)], "c": []}
    outcome = predict(recoverer, [folder], Options(out=tmp_path, detections=boxes, viewer=False))
    assert outcome.written == ["a", "b"]
    assert outcome.failed == ["a.2: box 1,1,41,9: no camera"]


def test_nothing_of_the_user_s_or_of_another_picture_is_overwritten(recoverer, folder):
    make_picture(seed=3).save(folder / "a.2.png")
    (folder / "b").mkdir()
    (folder / "b/notes.txt").write_text("mine")
    boxes = {"a": [(1, 1, 30, 9), (1, 1, 41, 9)], "a.2": [(1, 1, 9, 9)], "b": [(1, 1, 9, 9)]}
    options = Options(out=folder, detections=boxes | {"c": []}, viewer=False)
    outcome = predict(recoverer, [folder / name for name in ("a.png", "a.2.png", "b.png")], options)
    assert outcome.written == ["a", "a.2"] and (folder / "b/notes.txt").exists()
    assert [line.partition(": ")[0] for line in outcome.failed] == [
        str(folder / name) for name in ("a.2", "b")
    ]
    make_picture().save(folder / "more.png")
    with pytest.raises(UserError, match=r"c.png: its outputs would overwrite those of .*more.png"):
        find_sources([folder])


def test_the_command_ends_with_0_or_names_what_it_left_out(
    toy, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("hmdiff.compute.use_threads", lambda count: None)
    (folder / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    options = ["--out", str(out), "--project", str(toy), "--device", "cpu", "--format", "ply"]
    for path, code in ((folder / "a.png", 0), (folder, 2)):
        arguments = ["hmdiff", "predict", "--kind", "hand", str(path), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == code
    said = capsys.readouterr()
    assert f"{out}: 2 written, 1 were finished" in said.out
    assert "1 left out, see the warnings" in said.err
    assert {path.name for path in (out / "a").glob("mesh.*")} == {"mesh.ply"}


def test_detections_give_a_folder_a_person(recoverer, folder, tmp_path):
    path = tmp_path / "boxes.json"
    boxes = {"a.png": [[5, 5, 40, 60], [60, 5, 40, 60]], "more/c": [[0, 0, 9, 9]]}
    path.write_text(json.dumps(boxes))
    options = Options(out=tmp_path / "out", detections=read_detections(path), viewer=False)
    outcome = predict(recoverer, [folder], options)
    assert outcome.written == ["a", "a.2", "more/c"]
    assert outcome.failed == ["b: not in the detections; add its boxes, or []"]
    path.write_text(json.dumps(boxes | {"b": []}))  # nobody is there
    again = predict(
        recoverer, [folder], dataclasses.replace(options, detections=read_detections(path))
    )
    assert len(again.skipped) == 3 and not again.failed
    path.write_text(json.dumps([{"file_name": "a.png", "bbox": [1, 2, 3, 4], "score": 0.9}]))
    assert read_detections(path) == {"a": [(1, 2, 3, 4)]}


def test_a_video_is_its_frames(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="videos need opencv-python-headless")
    size = (64, 48)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, size)
    for shade in range(0, 250, 50):
        writer.write(np.full((48, 64, 3), (0, 0, shade), np.uint8))  # BGR: red
    writer.release()
    (source,) = find_sources([tmp_path / "v.avi"])
    frames = list(pictures(source, every=2))
    assert [frame.name for frame in frames] == ["v/000000", "v/000002", "v/000004"]
    last = np.asarray(frames[-1].read()).mean((0, 1))
    assert last == pytest.approx([200, 0, 0], abs=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda toy: hmdiff.load(toy / "models/train/none"), "no trained model there"),
        (lambda toy: hmdiff.load(toy / "runs"), "not a folder models/train/NAME"),
        (lambda toy: hmdiff.load(toy / "models/train/hand", steps=99), r"steps: 99 .*K = 50"),
        (lambda toy: hmdiff.load(toy / "models/train/hand", device="tpu9"), "device: cannot use"),
        (lambda toy: find_sources([toy / "nothing"]), "no such file or folder"),
        (lambda toy: find_sources([toy / "runs"]), "no image or video in it"),
        (lambda toy: parse_box("1,2,3"), "not four numbers"),
        (lambda toy: read_detections(toy / "params.yaml"), "not valid JSON"),
        (lambda toy: find_checkpoint("foot", toy), "none is a foot"),
    ],
)
def test_what_a_user_can_mend_is_one_line(toy, call, message):
    with pytest.raises(UserError, match=message) as line:
        call(toy)
    assert "\n" not in str(line.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 20_000 + "]" * 20_000, "not valid JSON"),
        ("[[1, 2, 3, " + "1" * 5000 + "]]", "not valid JSON"),  # more digits than Python reads
        ("[[1, 2, 3, " + "1" * 400 + "]]", "neither"),  # more than a float holds
    ],
)
def test_hostile_detections_are_one_line(tmp_path, value, message):
    path = tmp_path / "boxes.json"
    path.write_text(f'{{"a.jpg": {value}}}')
    with pytest.raises(UserError, match=rf"boxes\.json: {message}.*; mend it") as line:
        read_detections(path)
    assert "\n" not in str(line.value)


@pytest.mark.parametrize("box", [(500, 0, 10, 10), (0, 0, 0, 10), (0, 0, float("nan"), 5)])
def test_a_box_that_holds_no_person_is_one_line(recoverer, box):
    with pytest.raises(UserError, match=r"box .*mend it"):
        recoverer.predict(make_picture(), bbox=box)
