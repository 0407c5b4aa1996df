import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.errors import DataError, WeightsError
from sparseformers.evaluation import TeacherAttention, token_influence
from sparseformers.figures import trace_rois
from sparseformers.inheritance import inherit
from sparseformers.saving import load, save
from sparseformers.teachers import load_teacher
from sparseformers.viewer import Session
from sparseformers.viewer.images import GoneError, UnreadableError
from sparseformers.viewer.session import load_networks
from tests.evaluation.students import original
from tests.model.small import small_model
from tests.tiny import SIDE, write_images, write_teacher
from tests.viewer.small import TOKENS, Small, config_of, networks_of


@pytest.fixture(scope="module")
def session(small: Small) -> Iterator[Session]:
    session = Session(config_of(small, neighbours=small.photos), small.networks)
    yield session
    session.close()


def photographs(small: Small) -> list[Path]:
    """Those that can be read: g1, g2 ... of a session, whose g0 is the file that is no image."""
    return sorted(small.photos.glob("photograph_*.jpg"))


def view_of(path: Path, preprocessing: PreprocessingConfig) -> torch.Tensor:
    return evaluation_view(preprocessing)(Image.open(path))[None]


def nearest(session: Session, key: str, by: str) -> dict[str, Any]:
    """The neighbours, waited for."""
    for _ in range(600):
        found = session.nearest(key, by)
        if found["state"] == "ready":
            return found
        assert 0 <= found["done"] <= found["total"] == 13
        time.sleep(0.05)
    raise AssertionError("the folder is not embedded")


class TestTrace:
    def test_is_what_trace_rois_says_and_the_cosine_that_of_the_two_embeddings(self, small: Small, session: Session) -> None:
        student, path = load(small.model), photographs(small)[0]
        images = view_of(path, student.config.preprocessing)
        (picture,) = trace_rois(student, images, ["a"])
        traced = session.trace("g1", "0")
        assert session.describe("g1")["name"] == path.name
        torch.testing.assert_close(torch.tensor(traced["rois"]), picture.rois, atol=1e-5, rtol=0)
        assert len(traced["points"]) == len(picture.points) == len(picture.rois)
        for said, points in zip(traced["points"], picture.points, strict=True):
            torch.testing.assert_close(torch.tensor(said), points, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(traced["influence"]), token_influence(student, images)[0], atol=1e-5, rtol=0)
        assert sum(traced["influence"]) == pytest.approx(1, abs=1e-3)
        assert traced["rois"][0] != traced["rois"][-1]
        with torch.no_grad():
            expected = F.cosine_similarity(student(images).embedding, session.networks.teacher(images).embedding)
        assert traced["cosine"] == pytest.approx(expected.item(), abs=1e-4)

    def test_two_models_look_at_the_same_image(self, small: Small) -> None:
        session = Session(config_of(small, beside=str(small.other)))
        first, second = (session.trace("g1", by) for by in ("0", "1"))
        assert [len(first["rois"]), len(first["rois"][0])] == [4, TOKENS]
        assert [len(second["rois"]), len(second["rois"][0])] == [1, 4]
        assert [len(model["colours"]) for model in session.state()["models"]] == [TOKENS, 4]

    def test_answers_are_the_same_from_many_threads(self, small: Small) -> None:
        session = Session(config_of(small), small.networks)
        with ThreadPoolExecutor(6) as pool:
            traces = list(pool.map(lambda _: session.trace("g1", "0"), range(6)))
        assert all(traced == traces[0] for traced in traces)

    def test_the_first_papers_network_reads_nothing_at_its_start(self, small: Small) -> None:
        traced = Session(config_of(small), networks_of(original(small.networks.teacher))).trace("g1", "0")
        assert len(traced["rois"]) == len(traced["points"]) == 4  # the start, two iterations, and the layer of the cortex
        assert [points is None for points in traced["points"]] == [True, False, False, False]
        assert traced["cosine"] is None

    def test_a_front_with_a_map_shows_it_and_where_no_influence_can_be_read_it_says_why(
        self, small: Small, session: Session
    ) -> None:
        student = inherit(small.networks.teacher, front="mixed", tokens=10).student
        traced = Session(config_of(small), networks_of(student)).trace("g1", "0")
        assert torch.tensor(traced["map"]).sum().item() == pytest.approx(1, abs=1e-4)
        assert [traced["stages"][0], traced["stages"][-1]] == ["start", "leaves"]
        assert len(traced["stages"]) == len(traced["rois"]) == len(traced["points"])
        assert session.trace("g1", "0")["map"] is None
        assert session.trace("g1", "0")["stages"] == ("start", "iteration 1", "iteration 2", "iteration 3")
        traced = Session(config_of(small), networks_of(small_model(depth=0))).trace("g1", "0")
        assert traced["influence"] is None
        assert traced["influence_problem"] == "The student's cortex has no blocks, so there is no attention to read."

    def test_a_model_that_there_is_not(self, session: Session) -> None:
        for model in ("1", "2", "-1", "teacher", "0/../0"):
            with pytest.raises(GoneError):
                session.trace("g1", model)


class TestAttention:
    def test_is_the_teachers(self, small: Small, session: Session) -> None:
        teacher = session.networks.teacher
        maps = TeacherAttention(teacher)(view_of(photographs(small)[0], teacher.preprocessing))
        said = session.attention("g1")
        torch.testing.assert_close(torch.tensor(said["last"]), maps.last[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(torch.tensor(said["rollout"]), maps.rollout[0], atol=1e-6, rtol=0)
        assert said["seen"] == session.trace("g1", "0")["seen"]

    def test_without_the_teacher_the_page_says_why(self, small: Small) -> None:
        session = Session(config_of(small, run=str(small.orphan)))
        assert session.state()["teacher"] is None
        assert "does not say which teacher it was made from" in session.state()["teacher_problem"]
        assert session.trace("g1", "0")["cosine"] is None
        with pytest.raises(GoneError, match="does not say which teacher"):
            session.attention("g1")


class TestNearest:
    @pytest.mark.parametrize("by", ["0", "teacher"])
    def test_are_those_of_the_embeddings(self, small: Small, session: Session, by: str) -> None:
        network = session.networks.teacher if by == "teacher" else session.networks.models[0].student
        paths = photographs(small)
        preprocessing = session.networks.models[0].preprocessing
        with torch.inference_mode():
            rows = F.normalize(torch.cat([network(view_of(path, preprocessing)).embedding for path in paths]), dim=1)
        cosines = rows @ rows[3]
        cosines[3] = -1  # not the image itself
        expected = cosines.topk(8)
        found = nearest(session, "g4", by)
        assert [result["name"] for result in found["results"]] == [paths[index].name for index in expected.indices]
        assert [result["cosine"] for result in found["results"]] == pytest.approx(expected.values.tolist(), abs=1e-3)
        assert found["skipped"] == 1
        assert session.describe(found["results"][0]["key"])["name"] == found["results"][0]["name"]

    def test_a_dropped_image_may_find_its_own_file(self, small: Small, session: Session) -> None:
        path = photographs(small)[3]
        key = session.upload(path.read_bytes(), "dropped.jpg")["key"]
        first = nearest(session, key, "0")["results"][0]
        assert first["name"] == path.name
        assert first["cosine"] == pytest.approx(1, abs=1e-3)

    def test_a_folder_in_which_nothing_can_be_read_and_none(self, small: Small, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"nothing")
        session = Session(config_of(small, neighbours=tmp_path), small.networks)
        session.start()
        with pytest.raises(DataError, match="None of the 1 images can be read"):  # noqa: PT012  # it takes a moment
            for _ in range(200):
                session.nearest("g1", "0")
                time.sleep(0.05)
        with pytest.raises(GoneError, match="Start the page with --neighbours DIR"):
            Session(config_of(small), small.networks).nearest("g1", "0")


class TestImages:
    def test_an_unreadable_image_is_named(self, session: Session) -> None:
        for ask in (session.photograph, session.library.thumbnail):
            with pytest.raises(UnreadableError, match=r"'broken\.jpg' cannot be read: not an image of a known format"):
                ask("g0")

    def test_keys_that_there_are_not(self, session: Session) -> None:
        for key in ("g13", "g-1", "g", "u0x", "n99", "x1", "../photos", "/etc/passwd", "g0/../../x", "g\u0661"):
            for ask in (session.photograph, session.library.thumbnail):
                with pytest.raises(GoneError):
                    ask(key)

    def test_old_uploads_make_room(self, small: Small) -> None:
        session = Session(config_of(small, uploads_kept=2), small.networks)
        content = (small.photos / "photograph_000.jpg").read_bytes()
        keys = [session.upload(content, f"{number}.jpg")["key"] for number in range(3)]
        assert session.describe(keys[2])["name"] == "2.jpg"
        with pytest.raises(GoneError, match="Drop it again: the last 2 dropped images are kept"):
            session.describe(keys[0])

    def test_a_large_upload_is_seen_as_its_file_would_be(self, small: Small) -> None:
        session = Session(config_of(small), small.networks)
        memory = io.BytesIO()
        gradient = Image.linear_gradient("L").resize((2736, 1824))
        Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM), gradient)).save(memory, "JPEG")
        described = session.upload(memory.getvalue(), "large.jpg")
        assert (described["width"], described["height"]) == (2736, 1824)
        photograph = session.photograph(described["key"])
        assert len(photograph.display) < 1_000_000
        preprocessing = session.networks.models[0].preprocessing
        expected = evaluation_view(preprocessing)(Image.open(memory))
        assert torch.equal(photograph.inputs[preprocessing].image(), expected)
        assert len(session.trace(described["key"], "0")["rois"]) == 4


class TestNetworks:
    def test_a_teacher_that_is_gone_is_told(self, small: Small, tmp_path: Path) -> None:
        name = write_teacher(tmp_path / "teacher.safetensors")
        student, _, provenance = inherit(load_teacher(name, image_size=SIDE), tokens=4)
        save(student, tmp_path / "model.safetensors", provenance=provenance)
        (tmp_path / "teacher.safetensors").unlink()
        networks = load_networks(str(tmp_path / "model.safetensors"))
        assert networks.teacher is None
        assert networks.teacher_problem.startswith("Without the teacher: ")

    def test_a_teacher_that_was_asked_for_and_is_another_one(self, small: Small, tmp_path: Path) -> None:
        other = write_teacher(tmp_path / "other.safetensors", classes=5)
        with pytest.raises(WeightsError, match="not those that the student was made from"):
            load_networks(str(small.model), teacher=other)


def test_folders_are_checked_before_models_are_loaded(small: Small, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        Session(config_of(small, run="nothing", images=(tmp_path / "empty",)))


def test_a_page_without_images_waits_for_one(small: Small) -> None:
    session = Session(config_of(small, images=()), small.networks)
    assert session.state()["images"] == 0
    (path,) = write_images(small.folder / "dropped", 1)
    assert session.trace(session.upload(path.read_bytes(), "a.jpg")["key"], "0")["influence"]
