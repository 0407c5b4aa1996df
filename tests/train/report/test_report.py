"""What stands in a report: figures as in the metrics, pictures, file names as text, and nothing from outside."""

import base64
import hashlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from sparseformers.errors import RunError
from sparseformers.train import RunFolder, resume, write_report
from sparseformers.train.callbacks.held_out_record import HeldOutRecord
from sparseformers.train.report import ReportPage
from sparseformers.train.report.page import draw_curves
from tests.train.finished import HOSTILE, QUOTED
from tests.train.report.parsed import Element, decoded, parse
from tests.train.runs import edit, entries

FETCHING = {"src", "href", "srcset", "data", "poster", "action", "background", "style", "xlink:href"}


@pytest.fixture(scope="module")
def page(finished: RunFolder) -> Element:
    return parse(finished.report)


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """The same run, to be changed."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def size_of(image: Element) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(io.BytesIO(decoded(image))) as picture:
        return picture.size


def test_report__has_a_table_of_contents_that_leads_to_its_sections(page: Element) -> None:
    targets = [link.attributes["href"] for link in page.all("nav")[0].all("a")]
    assert targets == [f"#{section.attributes['id']}" for section in page.all("section")]
    assert len(targets) == 7
    assert page.all("h1")[0].all("bdi")[0].text == "run"
    assert "finished" in page.all("header")[0].text
    assert "Go on with it by" not in page.all("header")[0].text


def test_report__every_measurement_is_that_of_the_metrics(finished: RunFolder, page: Element) -> None:
    measured = entries(finished.path, "held_out")
    table = page.by_id("measurements").rows()
    assert len(measured) == len(table) - 1 == 5
    keys = ("centred_cosine", "cosine_mean", "cosine_p05", "constant_baseline", "neighbour_agreement")
    keys += ("roi_movement", "roi_size", "roi_coverage")
    assert page.by_id("measurements").values() == [entry[key] for entry in measured for key in keys]
    for entry, row in zip(measured, table[1:], strict=True):
        shares = {"neighbour_agreement", "roi_coverage"}
        assert row[0] == f"{entry['samples']:,}"
        assert row[1:] == [f"{100 * entry[key]:.1f}%" if key in shares else f"{entry[key]:.4f}" for key in keys]
    best = max(range(5), key=lambda place: measured[place]["centred_cosine"])
    assert page.by_id("measurements").all("tr")[1 + best].attributes["class"] == "marked"


def test_report__facts_and_first_figures_are_those_of_the_metrics(finished: RunFolder, page: Element) -> None:
    steps, measured = entries(finished.path, "train"), entries(finished.path, "held_out")
    tiles = [tile.values() for tile in page.by_id("result").all("ul")[0].all("li")]
    costs = json.loads(finished.config.read_text())["resolved"]["costs"]
    share = costs["student"]["multiply_adds"] / costs["teacher"]["multiply_adds"]
    assert tiles == [[measured[-1]["centred_cosine"]], [measured[-1]["cosine_mean"]], [share], [3]]
    facts = {fact.all("dt")[0].text: fact.values() for fact in page.by_id("facts").all("div")}
    assert facts["images seen"] == [24]
    assert facts["loss over the first 4 images"] == [steps[0]["loss"]]
    assert facts["loss, the last line (24 images)"] == [steps[-1]["loss"]]
    assert facts["images that could not be read"] == [1]


def test_report__costs_are_those_of_the_card(finished: RunFolder, page: Element) -> None:
    figures = finished.read_figures()
    student, teacher = figures["student_cost"], figures["teacher_cost"]
    rows = {row.all("th")[0].text: row.values() for row in page.by_id("costs").all("tr")[1:]}
    for label, key in (("parameters, M", "parameters"), ("multiply-adds, G", "multiply_adds")):
        assert rows[label] == [student[key], teacher[key], teacher[key] / student[key]], label
    assert rows["tokens"] == [3, figures["patch_tokens"], figures["patch_tokens"] / 3]
    groups = finished.read_config()["resolved"]["parameters"]
    assert {name.removeprefix("of them "): value[0] for name, value in rows.items() if name.startswith("of them")} == groups
    assert sum(groups.values()) == student["parameters"]


def test_report__the_worst_images_come_first_with_their_cosines(finished: RunFolder, page: Element) -> None:
    cosines = sorted(HeldOutRecord(finished.held_out).cosines(), key=lambda each: each.centred_cosine)
    cards = page.by_id("worst").all("li")
    assert [card.values() for card in cards] == [[each.centred_cosine, each.cosine] for each in cosines]
    assert len(cards) == 6
    for card in cards:
        assert size_of(card.all("img")[0]) == (64, 64)
    names = {card.all("bdi")[0].text for card in cards}
    assert {HOSTILE, QUOTED, "photo\\u202egpj.exe.jpg", "caf\\udce9.jpg"} < names


def test_report__file_names_are_text_and_nothing_else(page: Element) -> None:
    tags = {element.tag for element in page.everything()}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "b"}
    for element in page.everything():
        assert not [name for name in element.attributes if name.startswith("on")], element
    (row,) = page.by_id("files").rows()[1:]
    assert row[0].endswith("evaluation/broken <b>.jpg")
    assert row[1] == "not an image of a known format"
    assert "7 * 7" in page.text
    assert "\u202e" not in page.text


def test_report__fetches_nothing_its_curves_neither_and_says_so_to_the_browser(finished: RunFolder, page: Element) -> None:
    for element in page.everything():
        for name in FETCHING & element.attributes.keys():
            target = element.attributes[name] or ""
            allowed = ("data:image/",) if element.tag == "img" else ("#",)
            assert target.startswith(allowed), (element.tag, target[:80])
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    style = page.all("style")[0]
    (text,) = style.content
    digest = base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|https?:", str(text))
    assert "http" not in re.sub(r"data:[^\"]*", "", finished.report.read_text().replace("http-equiv", ""))
    (curves,) = page.by_id("curves").all("img")
    drawing = decoded(curves).decode()
    assert drawing.count("<path") > 10
    assert not re.search(r"<(script|image|foreignObject)|@import|href=\"(?!#)", drawing)


def test_report__shows_rois_of_the_start_the_middle_and_the_end(finished: RunFolder, page: Element) -> None:
    assert [moment.samples for moment in HeldOutRecord(finished.held_out).moments()] == [0, 8, 12, 20, 24]
    (drawing,) = page.by_id("rois").all("img")
    width, height = size_of(drawing)
    assert width > height  # five panels side by side, four rows


def test_report__has_the_whole_configuration(finished: RunFolder, page: Element) -> None:
    content = json.loads(finished.config.read_text())
    shown = dict(tuple(row) for row in page.by_id("settings").rows()[1:])
    assert list(shown) == [name for group in content["settings"].values() for name in group]
    assert (shown["samples"], shown["lr"], shown["tokens"], shown["compile"]) == ("24", "0.003", "-", "no")
    marked = {row.all("th")[0].text for row in page.by_id("settings").all("tr") if row.attributes.get("class") == "marked"}
    assert {"samples", "teacher", "lr", "data"} < marked
    assert not marked & {"tokens", "seed", "weight_decay"}
    resolved = dict(tuple(row) for row in page.by_id("resolved").rows()[1:])
    assert resolved["model.focusing.tokens"] == "3"
    assert resolved["teacher_fingerprint"] == content["resolved"]["teacher_fingerprint"]
    assert dict(tuple(row) for row in page.by_id("versions").rows()[1:]) == content["versions"]


def test_write_report__again_gives_the_same_pictures_without_teacher_data_and_model(copy: RunFolder, page: Element) -> None:
    edit(copy.config, lambda content: content["settings"]["network"].update(teacher="timm:gone@/nowhere/teacher.safetensors"))
    edit(copy.config, lambda content: content["settings"]["data"].update(data=["/nowhere"], eval_data=["/nowhere"]))
    copy.model.unlink()
    shutil.rmtree(copy.checkpoints)
    assert write_report(copy).missing == ()
    pictures, before = ([image.attributes["src"] for image in each.all("img")] for each in (parse(copy.report), page))
    assert pictures == before


def test_write_report__of_an_earlier_version_says_what_it_lacks(copy: RunFolder) -> None:
    shutil.rmtree(copy.held_out)
    edit(copy.config, lambda content: content["resolved"].pop("costs"))
    report = write_report(copy)
    page = parse(copy.report)
    assert len(report.missing) == 3
    told_of = {"rois": "There are no RoIs", "worst": "Which images are aligned worst is not known", "cost": "The cost is not"}
    for name, told in told_of.items():
        assert told in page.by_id(name).text
        assert "an earlier version made the run" in page.by_id(name).text
        assert not page.by_id(name).all("img")
    assert len(page.by_id("measurements").rows()) == 6


def test_write_report__of_a_run_that_has_only_begun(copy: RunFolder) -> None:
    for path in (copy.metrics, copy.card, copy.heartbeat, copy.skipped, copy.model):
        path.unlink()
    shutil.rmtree(copy.held_out)
    shutil.rmtree(copy.checkpoints)
    report = write_report(copy)
    page = parse(copy.report)
    assert "Nothing in its folder tells whether it is at its end." in page.all("header")[0].text
    missing = ["There are no curves", "There are no RoIs", "Which images are aligned worst is not known"]
    assert [sentence.partition(":")[0] for sentence in report.missing] == missing
    assert "the run has not measured yet" in page.by_id("rois").text


def test_write_report__of_a_dead_run_names_the_worst_and_how_to_go_on(copy: RunFolder) -> None:
    copy.card.unlink()
    edit(copy.heartbeat, lambda beat: beat.update(state="running", at=0.0, host="another machine"))
    HeldOutRecord(copy.held_out)._worst.unlink()
    (copy.held_out / "rois-00000024.safetensors").unlink()
    write_report(copy)
    page = parse(copy.report)
    header = page.all("header")[0].text
    assert "dead" in header
    assert f"sparseformers resume {copy.path}" in header
    assert "1970-01-01 at 00:00 UTC" in header
    assert len(page.by_id("worst").all("li")) == 6
    assert not page.by_id("worst").all("img")
    assert "Pictures of them are kept at the end of the training." in page.by_id("worst").text


def test_write_report__passes_over_files_that_are_damaged(copy: RunFolder) -> None:
    moments = sorted(copy.held_out.glob("rois-*"))
    moments[0].write_bytes(b"no tensors")
    save_file({"rois": torch.zeros(1, 1, 3, 4), "points": torch.zeros(1, 3, 4, 2)}, moments[1], metadata={"progress": "0.3"})
    write_report(copy)
    assert "The start was not kept" in parse(copy.report).by_id("rois").text
    (copy.held_out / "images.safetensors").write_bytes(b"")
    (copy.held_out / "cosines.jsonl").write_text("{")
    (copy.held_out / "worst.safetensors").write_bytes(b"1")
    assert len(write_report(copy).missing) == 2


def test_write_report__rois_that_did_not_move_are_drawn_once(copy: RunFolder) -> None:
    paths = sorted(copy.held_out.glob("rois-*"))
    first = load_file(paths[0])
    for path in paths:
        save_file(first, path, metadata={"progress": str(int(path.stem[5:]) / 24)})
    write_report(copy)
    section = parse(copy.report).by_id("rois")
    assert "The RoIs did not move" in section.text
    width, height = size_of(section.all("img")[0])
    assert height > width  # three panels side by side, four rows


def test_write_report__stays_below_its_size_whatever_there_is_to_show(copy: RunFolder, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = load_file(copy.held_out / "worst.safetensors")
    noise = {name: torch.randint(0, 256, (3, 224, 224), generator=generator, dtype=torch.uint8) for name in pictures}
    titles = {"titles": json.dumps([str(each.index) for each in HeldOutRecord(copy.held_out).cosines()])}
    save_file(noise, copy.held_out / "worst.safetensors", metadata=titles)
    with copy.metrics.open("a") as file:
        for number in range(2_000):
            line = {"kind": "train", "samples": 24 + number, "seconds": 1.0, "loss": float(torch.rand((), generator=generator))}
            line |= {"images_per_second": 1.0, "data_wait": 0.0, "peak_memory_gib": 1.0}
            file.write(json.dumps(line) + "\n")
    reason = "x" * 5000
    copy.skipped.write_text("# many\n" + "".join(f"{'n' * 3000}{number}.jpg\t{reason}\n" for number in range(1_000)))
    full = write_report(copy).bytes
    assert full < 5_000_000
    assert "700 more are in skipped_images.txt" in parse(copy.report).by_id("skipped").text
    assert full > 2 * write_report(copy, tmp_path / "small.html", most_bytes=full // 2).bytes
    page = parse(tmp_path / "small.html")
    assert page.by_id("curves").all("img")
    assert len(page.by_id("worst").all("li")) == 6
    shutil.rmtree(copy.held_out)
    with pytest.raises(RunError, match="bytes without any picture"):
        write_report(copy, tmp_path / "none.html", most_bytes=1000)
    assert not (tmp_path / "none.html").exists()


@pytest.mark.draws
def test_report_page__that_cannot_be_made_stops_nothing(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reports_may_fail: list[str]
) -> None:
    def fails(*_given: object) -> bytes:
        raise ZeroDivisionError("no such figure")

    monkeypatch.setattr(sys.modules[draw_curves.__module__], "curves_svg", fails)
    copy.report.unlink()
    with copy.logging():
        ReportPage(copy, Console()).on_end()
    assert not copy.report.exists()
    printed = " ".join(capsys.readouterr().out.split())
    assert "The report of the run could not be made (ZeroDivisionError: no such figure)" in printed
    assert f"sparseformers report {copy.path}" in printed
    log = copy.log.read_text()
    assert "WARNING The report of the run could not be made" in log
    assert "Traceback" in log
    assert len(reports_may_fail) == 1


def test_write_report__of_a_front_that_keeps_its_rois_says_nothing_of_them(copy: RunFolder) -> None:
    edit(copy.config, lambda content: content["resolved"]["model"].update(focusing={"kind": "grid", "tokens": 3}))
    assert write_report(copy).missing == ()
    page = parse(copy.report)
    assert not [element for element in page.everything() if (element.attributes.get("href") or "").endswith("rois")]
    assert len(page.all("section")) == len(page.all("nav")[0].all("a")) == 6
    assert page.by_id("measurements").rows()[0][-1] == "neighbours in common"
    assert "RoI" not in page.by_id("curves").text


@pytest.mark.draws
def test_resume__of_a_finished_run_makes_a_report_that_is_missing(copy: RunFolder) -> None:
    copy.report.unlink()
    resume(copy.path)
    assert parse(copy.report).all("h1")[0].all("bdi")[0].text == "run"
