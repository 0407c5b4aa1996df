"""What a run keeps of its held-out images: the right name beside each cosine, few files, and the same after a resumption."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import sparseformers
from sparseformers.data import evaluation_view, fixed_views, read_image
from sparseformers.evaluation import Drift
from sparseformers.files import printable
from sparseformers.train import RunFolder, bootstrap, resume
from sparseformers.train.callbacks.held_out_record import MOST_POINTS, HeldOutRecord, ViewCosine, small, worst_of
from sparseformers.train.held_out import FollowedRoIs, HeldOut, Measurement
from tests.tiny import SIDE, write_images
from tests.train.runs import entries, focusing, tiny_settings


def record_of(run: Path) -> HeldOutRecord:
    return HeldOutRecord(RunFolder(run).held_out)


def test_cosines__are_those_of_the_images_they_name_among_unreadable_ones(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "evaluation", 7, seed=5)
    for place in (0, 3, 4):
        paths[place].write_bytes(b"no photograph")
    settings = tiny_settings(tmp_path).with_(eval_data=(tmp_path / "evaluation",), evaluations=1, batch_size=3)
    bootstrap(settings, tmp_path / "run")
    cosines = record_of(tmp_path / "run").cosines()
    assert [each.name for each in cosines] == [str(paths[place]) for place in (1, 2, 5, 6)]
    assert [(each.index, each.view, each.samples) for each in cosines] == [(place, None, 24) for place in (1, 2, 5, 6)]
    teacher = sparseformers.load_teacher(settings.network.teacher, image_size=SIDE).eval()
    student, view = sparseformers.load(tmp_path / "run"), evaluation_view(teacher.preprocessing)
    images = torch.stack([view(read_image(Path(each.name))) for each in cosines])
    with torch.inference_mode():
        of_student, of_teacher = student(images).embedding, teacher(images).embedding
    expected = F.cosine_similarity(of_student, of_teacher)
    centre = of_teacher.mean(dim=0)
    centred = F.cosine_similarity(of_student - centre, of_teacher - centre)
    assert [each.cosine for each in cosines] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [each.centred_cosine for each in cosines] == pytest.approx(centred.tolist(), abs=1e-4)
    measured = entries(tmp_path / "run", "held_out")[-1]
    assert sum(each.cosine for each in cosines) / 4 == pytest.approx(measured["cosine_mean"], abs=1e-6)
    assert sum(each.centred_cosine for each in cosines) / 4 == pytest.approx(measured["centred_cosine"], abs=1e-6)


def test_cosines__of_several_views_of_an_image_and_their_pictures(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "evaluation", 4, seed=5)
    paths[1].write_bytes(b"no photograph")
    settings = tiny_settings(tmp_path).with_(eval_data=(tmp_path / "evaluation",), eval_views=5, evaluations=1)
    bootstrap(settings, tmp_path / "run")
    record = record_of(tmp_path / "run")
    cosines = record.cosines()
    assert [(each.name, each.view) for each in cosines] == [(str(paths[place]), view) for place in (0, 2, 3) for view in range(5)]
    measured = entries(tmp_path / "run", "held_out")[-1]
    assert sum(each.centred_cosine for each in cosines) / 15 == pytest.approx(measured["centred_cosine"], abs=1e-6)
    views = list(fixed_views(paths, size=(SIDE, SIDE), views_per_image=5, seed=0, batch_size=1))
    pictures = record.worst()
    assert list(pictures) == [each.index for each in worst_of(cosines)]
    for index, picture in pictures.items():
        assert torch.equal(picture, views[index].images[0])


def test_moments__are_those_of_the_student_at_the_time(finished: RunFolder) -> None:
    record = record_of(finished.path)
    first, _, middle, _, last = record.moments()
    assert [(moment.samples, moment.progress) for moment in (first, middle, last)] == [(0, 0.0), (12, 0.5), (24, 1.0)]
    student = sparseformers.load(finished.path)
    images = torch.stack([picture.image for picture in record.images()]).float() / 255
    with torch.inference_mode():
        focus = student.run_front(images)
    torch.testing.assert_close(last.rois, focus.rois)
    torch.testing.assert_close(last.points, focus.points[-1], rtol=0, atol=1e-3)
    assert torch.equal(first.rois[:, 0], first.rois[:, -1])
    assert not torch.equal(middle.rois, last.rois)
    assert (finished.path / "rois.png").is_file()
    assert {picture.title for picture in record.images()} <= {printable(Path(each.name).name) for each in record.cosines()}


def test_moments__are_few_however_often_is_measured_and_those_after_a_checkpoint_go(tmp_path: Path) -> None:
    record, written = HeldOutRecord(tmp_path / "held_out"), {}
    followed = FollowedRoIs(Drift(0, 0, 0, 0, 0), torch.rand(9, 2, 5, 4), torch.rand(9, 5, 4, 2))
    record.folder.mkdir()
    for step in range(101):
        record._write_rois(followed, samples=10 * step, progress=step / 100)
        written[10 * step] = {path.name for path in record.folder.iterdir()}
    kept = [moment.samples for moment in record.moments()]
    assert kept == [0, 130, 250, 380, 500, 630, 750, 880, 1000]
    assert max(map(len, written.values())) == 9
    assert record.moments()[0].rois.shape == (4, 2, 5, 4)
    record.rewind(600)
    assert [moment.samples for moment in record.moments()] == [0, 130, 250, 380, 500]
    for step in range(61, 101):
        record._write_rois(followed, samples=10 * step, progress=step / 100)
    assert {path.name for path in record.folder.iterdir()} == written[1000]
    record.rewind(None)
    assert not list(record.folder.iterdir())


def test_points__of_an_image_are_at_most_so_many(tmp_path: Path) -> None:
    record = HeldOutRecord(tmp_path)
    points = torch.rand(4, 100, 400, 2)
    record._write_rois(FollowedRoIs(Drift(0, 0, 0, 0, 0), torch.rand(4, 1, 100, 4), points), samples=0, progress=0.0)
    (moment,) = record.moments()
    assert moment.points.shape == (4, 100, MOST_POINTS // 100, 2)
    of_first = {tuple(point) for point in points[0, 0].half().tolist()}
    assert {tuple(point) for point in moment.points[0, 0].half().tolist()} < of_first


def test_rewind__drops_cosines_that_are_too_new(tmp_path: Path) -> None:
    record = HeldOutRecord(tmp_path)
    record._write_cosines([ViewCosine(samples=20, index=0, name="\udce9.jpg", view=None, cosine=0.5, centred_cosine=0.25)])
    assert json.loads((tmp_path / "cosines.jsonl").read_text())["name"] == "\udce9.jpg"
    record.rewind(20)
    assert [each.name for each in record.cosines()] == ["\udce9.jpg"]
    record.rewind(19)
    assert record.cosines() == []


@pytest.mark.draws
def test_resume__of_a_run_of_an_earlier_version_keeps_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = focusing(tiny_settings(tmp_path)).with_(checkpoint_every="1steps")
    original = HeldOut.measure

    def stop_at_the_end(self: HeldOut, student: sparseformers.SparseFormer) -> Measurement:
        if len(list((tmp_path / "run" / "held_out").glob("rois-*"))) == 3:
            raise KeyboardInterrupt
        return original(self, student)

    monkeypatch.setattr(HeldOut, "measure", stop_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        bootstrap(settings, tmp_path / "run")
    monkeypatch.undo()
    for path in (tmp_path / "run" / "held_out").iterdir():
        path.unlink()
    resume(tmp_path / "run")
    record = record_of(tmp_path / "run")
    assert [moment.samples for moment in record.moments()][-1] == 24
    assert record.moments()[0].samples > 0
    assert record.images()
    assert "The start was not kept" in RunFolder(tmp_path / "run").report.read_text()


def test_worst_of__lowest_centred_cosine_first() -> None:
    cosines = [
        ViewCosine(samples=1, index=index, name="", view=None, cosine=1.0, centred_cosine=value)
        for index, value in enumerate([0.3, -0.1, 0.9, -0.1])
    ]
    assert [each.index for each in worst_of(cosines, 3)] == [1, 3, 0]


def test_small__keeps_the_aspect_ratio_and_small_pictures() -> None:
    picture = torch.randint(0, 256, (3, 100, 200), dtype=torch.uint8)
    assert small(picture, 50).shape == (3, 25, 50)
    assert torch.equal(small(picture, 200), picture)
