"""The page's addresses: its files, images by key, and answers of networks as JSON; and a guard on who may ask.

The server listens on this machine only, but any page in a browser can send requests to it. So it answers only under its own name
(against DNS rebinding), and not to requests that another site sends. The page may load nothing from elsewhere.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sparseformers.errors import DataError, SparseFormersError
from sparseformers.viewer.images import GoneError
from sparseformers.viewer.session import Session

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LONGEST_NAME = 120  # characters of a dropped file's name that are shown
LISTED_AT_ONCE = 200  # images in one answer, at most


class TooLargeError(DataError):
    """A dropped file is larger than what is taken in."""


def make_app(session: Session, *, port: int, framed: bool) -> Starlette:
    """The web application on ``port``; ``framed`` lets notebooks on this machine show it in a frame."""
    image = "/api/images/{key}"
    return Starlette(
        routes=[
            *(Route(f"/page/{name}", _file(*content)) for name, content in page_files().items()),
            Route("/", _file(*page_files()["index.html"])),
            Route("/api/state", _answer(session.state)),
            Route("/api/images", lambda request: JSONResponse(_listing(session, request)), methods=["GET"]),
            Route("/api/images", _upload(session), methods=["POST"]),
            Route(image, _answer(session.describe)),
            Route(f"{image}/display.jpg", _answer(lambda key: session.photograph(key).display)),
            Route(f"{image}/thumbnail.jpg", _answer(session.library.thumbnail)),
            Route(f"{image}/trace/{{model}}", _answer(session.trace)),
            Route(f"{image}/attention", _answer(session.attention)),
            Route(f"{image}/nearest/{{by}}", _answer(session.nearest)),
        ],
        middleware=[Middleware(Guard, port=port, framed=framed)],
        exception_handlers={
            SparseFormersError: _refuse,
            HTTPException: _refuse,
            ClientDisconnect: lambda *_: Response(status_code=400),  # who is gone gets no answer, and it is no fault
            Exception: _fail,
        },
    )


def page_files() -> Mapping[str, tuple[bytes, str]]:
    """Content and type of the page's files by name, read as a whole, so that no address can name another file."""
    folder = importlib.resources.files("sparseformers.viewer") / "page"
    kinds = {entry: TYPES.get(PurePath(entry.name).suffix) for entry in folder.iterdir()}
    return {entry.name: (entry.read_bytes(), kind) for entry, kind in kinds.items() if kind is not None}


def _file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        return Response(content, media_type=kind)

    return serve


def _answer(ask: Callable[..., Any]) -> Callable[[Request], Response]:
    """A route that asks the session, in a thread: networks take their time, and the page goes on meanwhile."""

    def route(request: Request) -> Response:
        found = ask(**request.path_params)
        return Response(found, media_type="image/jpeg") if isinstance(found, bytes) else JSONResponse(found)

    return route


def _listing(session: Session, request: Request) -> list[dict[str, str]]:
    try:
        start = int(request.query_params.get("start", "0"))
    except ValueError:
        raise GoneError("'start' is not a number.", "Give the place of the first image.") from None
    return session.library.listing(start, LISTED_AT_ONCE)


def _upload(session: Session) -> Callable[[Request], Awaitable[Response]]:
    """The file itself is the request's body: a form would be spooled to the disk, and images are to stay in memory."""

    async def route(request: Request) -> Response:
        content = await _body(request, session.config.most_bytes)
        name = unquote(request.headers.get("x-file-name", ""), errors="replace").strip()[:LONGEST_NAME] or "the dropped image"
        return JSONResponse(await run_in_threadpool(session.upload, content, name))

    return route


async def _body(request: Request, most: int) -> bytes:
    """A request's body; raises TooLargeError as soon as it is known to be larger than ``most`` bytes."""
    declared = request.headers.get("content-length", "0")
    received = bytearray()
    remedy = "Choose a smaller one, or start the page with a higher --upload-megabytes."
    too_large = TooLargeError(f"The file is larger than {most / 1e6:g} MB.", remedy)
    if not declared.isdecimal() or int(declared) > most:
        raise too_large
    async for part in request.stream():
        received += part
        if len(received) > most:
            raise too_large
    return bytes(received)


def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"problem": f"{error.detail}.", "remedy": ""}, status_code=error.status_code)
    assert isinstance(error, SparseFormersError)
    status = 413 if isinstance(error, TooLargeError) else 404 if isinstance(error, GoneError) else 422
    return JSONResponse({"problem": error.problem, "remedy": error.remedy}, status_code=status)


def _fail(_: Request, error: Exception) -> Response:
    """A fault of ours: said in the page, and printed by the server with its traceback."""
    return JSONResponse({"problem": f"Something went wrong ({type(error).__name__}).", "remedy": "See the terminal."}, 500)


LOCAL_FRAMES = "'self' http://localhost:* http://127.0.0.1:* vscode-webview:"
CONTENT = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "
)  # the Content-Security-Policy: nothing from elsewhere, and no script or style inside of the page
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard(BaseHTTPMiddleware):
    """Refuses requests from anywhere but the page, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, *, port: int, framed: bool) -> None:
        super().__init__(app)
        names = [f"127.0.0.1:{port}", f"localhost:{port}"]
        self.origins = {f"http://{name}" for name in names}
        if port == 80:  # which browsers leave out
            names += ["127.0.0.1", "localhost"]
            self.origins |= {"http://127.0.0.1", "http://localhost"}
        self.hosts = set(names)
        self.headers = HEADERS | {"Content-Security-Policy": CONTENT + (LOCAL_FRAMES if framed else "'none'")}

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        problem = self.refusal(request)
        refused = None if problem is None else JSONResponse({"problem": problem, "remedy": ""}, status_code=403)
        response = refused or await call_next(request)
        response.headers.update(self.headers)
        return response

    def refusal(self, request: Request) -> str | None:
        """Why a request is refused; None for one that is not."""
        headers = request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This server answers only under its own address on this machine."
        # Browsers say where a request comes from; opening the page itself, also in a notebook's frame, may come from anywhere.
        origin, site, mode = headers.get("origin"), headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
        opened = request.scope["path"] == "/" and request.method in ("GET", "HEAD") and mode == "navigate"
        foreign = origin not in (None, *self.origins) or (site not in ("same-origin", "none") and not opened)
        return "This server answers only to its own page." if foreign else None
