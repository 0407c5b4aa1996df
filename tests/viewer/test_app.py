import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from sparseformers.viewer import Session
from sparseformers.viewer.app import make_app, page_files
from tests.tiny import write_images
from tests.viewer.small import Small, config_of

PORT = 7007
HOME = f"http://127.0.0.1:{PORT}"


def client_of(session: Session, *, framed: bool = False) -> TestClient:
    return TestClient(make_app(session, port=PORT, framed=framed), base_url=HOME)


@pytest.fixture(scope="module")
def client(small: Small) -> Iterator[TestClient]:
    session = Session(config_of(small, neighbours=small.photos, upload_megabytes=0.05), small.networks)
    yield client_of(session)
    session.close()


def photo(small: Small) -> bytes:
    return (small.photos / "photograph_000.jpg").read_bytes()


class TestAnswers:
    def test_images_are_listed_and_shown(self, small: Small, client: TestClient) -> None:
        listed = client.get("/api/images", params={"start": 1}).json()
        assert listed[0] == {"key": "g1", "name": "photograph_000.jpg"}
        assert len(listed) == 12
        assert client.get("/api/images/g1").json() == {"key": "g1", "name": "photograph_000.jpg", "width": 96, "height": 72}
        for kind in ("display", "thumbnail"):
            response = client.get(f"/api/images/g1/{kind}.jpg")
            assert response.headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(response.content)).size == (96, 72)

    def test_state_and_attention(self, small: Small, client: TestClient) -> None:
        state = client.get("/api/state").json()
        assert state["images"] == 13
        assert state["neighbours"] == {"name": "photos", "images": 13}
        assert state["most_bytes"] == 50_000
        assert state["models"][0]["name"] == str(small.model)
        assert len(client.get("/api/images/g1/attention").json()["rollout"]) == 4

    def test_what_cannot_be_answered_is_a_sentence(self, client: TestClient) -> None:
        refused = {
            "/api/images/g0": 422,
            "/api/images/g0/thumbnail.jpg": 422,
            "/api/images/g99/trace/0": 404,
            "/api/images/g1/trace/7": 404,
            "/api/images/g1/nearest/1": 404,
            "/api/images?start=x": 404,
            "/api/nothing": 404,
        }
        for path, status in refused.items():
            response = client.get(path, follow_redirects=False)
            assert response.status_code == status, path
            assert response.json()["problem"].endswith("."), path
        assert client.get("/api/state/", follow_redirects=False).status_code == 307  # to the address without a slash


class TestUpload:
    def test_a_dropped_image_is_looked_at(self, small: Small, client: TestClient) -> None:
        response = client.post("/api/images", content=photo(small), headers={"X-File-Name": "my%20cat%3Cb%3E.jpg"})
        image = response.json()
        assert (image["name"], image["width"], image["height"]) == ("my cat<b>.jpg", 96, 72)
        ours, theirs = (client.get(f"/api/images/{key}/trace/0").json() for key in (image["key"], "g1"))
        assert ours == theirs

    def test_nothing_is_written(self, small: Small, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = sorted(path for path in small.folder.rglob("*"))
        assert client.post("/api/images", content=photo(small)).status_code == 200
        assert list(tmp_path.iterdir()) == []
        assert sorted(path for path in small.folder.rglob("*")) == before

    def test_what_is_no_image_is_named(self, client: TestClient) -> None:
        for content in (b"", b"GIF89a but not really", b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
            response = client.post("/api/images", content=content, headers={"X-File-Name": "notes.txt"})
            assert response.status_code == 422
            assert response.json()["problem"].startswith("'notes.txt' cannot be read: ")

    def test_a_file_that_is_too_large_says_so_or_not_or_has_too_many_pixels(self, small: Small, client: TestClient) -> None:
        response = client.post("/api/images", content=bytes(50_001))
        assert response.status_code == 413
        assert response.json()["problem"] == "The file is larger than 0.05 MB."
        assert "--upload-megabytes" in response.json()["remedy"]
        assert client.post("/api/images", content=iter([bytes(10_000)] * 20)).status_code == 413
        client = client_of(Session(config_of(small, megapixels=0.005), small.networks))
        response = client.post("/api/images", content=photo(small), headers={"X-File-Name": "a.jpg"})
        assert response.json()["problem"] == "'a.jpg' cannot be read: too large: 96 x 72 pixels, at most 5,000."


class TestPaths:
    def test_no_address_leads_to_another_file(self, small: Small, client: TestClient) -> None:
        model = str(small.model).replace("/", "%2F")
        keys = ("%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "photos%2Fphotograph_000.jpg", model)
        files = ("/../session.py", "/..%2fsession.py", "/%2e%2e/session.py", "//etc/passwd", "/", "")
        displays, pages = (f"/api/images/{key}/display.jpg" for key in keys), (f"/page{file}" for file in files)
        for path in ("/api/images/../../../../etc/passwd", "/session.py", *displays, *pages):
            response = client.get(path)
            assert response.status_code in (404, 405), path
            assert "problem" in response.json()

    def test_links_that_lead_out_of_a_folder_are_not_shown(self, small: Small, tmp_path: Path) -> None:
        (secret,) = write_images(tmp_path / "secret", 1)
        write_images(tmp_path / "photos", 1, seed=1)
        (tmp_path / "photos" / "link.jpg").symlink_to(secret)
        client = client_of(Session(config_of(small, images=(tmp_path / "photos",)), small.networks))
        assert [image["name"] for image in client.get("/api/images").json()] == ["photograph_000.jpg"]
        assert client.get("/api/images/g1/display.jpg").status_code == 404
        (tmp_path / "photos" / "photograph_000.jpg").unlink()
        (tmp_path / "photos" / "photograph_000.jpg").symlink_to(secret)
        response = client.get("/api/images/g0/display.jpg")
        assert response.status_code == 422
        assert "a link that leads out of its folder" in response.json()["problem"]


class TestGuard:
    def test_its_own_names_and_others(self, client: TestClient) -> None:
        for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}"):
            assert client.get("/api/state", headers={"Host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "localhost", "", f"127.0.0.1:{PORT}."):
            for path in ("/", "/api/state", "/api/images/g1/display.jpg", "/page/page.js"):
                response = client.get(path, headers={"Host": host})
                assert response.status_code == 403
                assert response.json()["problem"] == "This server answers only under its own address on this machine."

    def test_other_sites(self, small: Small, client: TestClient) -> None:
        origins = ("http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:8888")
        sites = ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"})
        for headers in (*({"Origin": origin} for origin in origins), *sites):
            assert client.post("/api/images", content=photo(small), headers=headers).status_code == 403
            response = client.get("/api/images/g1/display.jpg", headers=headers)
            assert response.status_code == 403
            assert response.json()["problem"] == "This server answers only to its own page."

    def test_its_own_page_and_a_link_to_it(self, small: Small, client: TestClient) -> None:
        headers = {"Origin": HOME, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
        assert client.post("/api/images", content=photo(small), headers=headers).status_code == 200
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers=link).status_code == 200
        assert client.get("/api/state", headers=link).status_code == 403

    def test_every_answer_tells_browsers_what_to_allow(self, small: Small, client: TestClient) -> None:
        for path in ("/", "/page/page.js", "/api/state", "/api/images/g1/display.jpg", "/api/images/g0", "/nothing"):
            headers = client.get(path).headers
            policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers
        refused = client.get("/", headers={"Host": "evil.example"}).headers
        assert "default-src 'self'" in refused["content-security-policy"]
        framed = client_of(Session(config_of(small), small.networks), framed=True)
        policy = framed.get("/").headers["content-security-policy"]
        assert "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* vscode-webview:" in policy


class TestPageFiles:
    def test_are_all_served(self, client: TestClient) -> None:
        assert client.get("/").text == client.get("/page/index.html").text
        for name, (content, kind) in page_files().items():
            response = client.get(f"/page/{name}")
            assert response.content == content
            assert response.headers["content-type"].startswith(kind)
        assert {"index.html", "style.css", "page.js", "icon.svg"} <= page_files().keys()

    def test_name_nothing_outside_of_this_server_import_what_is_there_and_keep_the_markup_free_of_scripts(self) -> None:
        allowed = {"http://www.w3.org/2000/svg"}  # the name of a namespace, which nothing fetches
        for name, (content, _) in page_files().items():
            addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[\w./-]*", content.decode()))
            assert addresses <= allowed, name
            assert set(re.findall(r'from "\./([\w.]+)"', content.decode())) <= page_files().keys(), name
        markup = page_files()["index.html"][0].decode()
        assert re.findall(r"<script[^>]*>", markup) == ['<script type="module" src="/page/page.js">']
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", markup)
