"""Who may talk to the page's server, and what a browser is told to allow.

The server listens on this machine only, but any page that a browser has open can send requests to it. So it answers only under
its own name (a foreign name that was made to point here is refused: DNS rebinding), and not to requests that another site
sends. The page itself may load nothing but what comes from here.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_FRAMES = "'self' http://localhost:* http://127.0.0.1:* vscode-webview:"
"""Who may show the page in a frame where it is for a notebook: notebooks on this machine."""

CONTENT = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "
)
"""The Content-Security-Policy: nothing from elsewhere, and no script or style inside of the page."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware that refuses what does not come from the page, and adds headers to every answer.

    Args:
        app: what it guards.
        port: of the server.
        framed: whether notebooks on this machine may show the page in a frame.
    """

    def __init__(self, app: ASGIApp, *, port: int, framed: bool) -> None:
        self.app = app
        names = [f"127.0.0.1:{port}", f"localhost:{port}"]
        self.origins = {f"http://{name}" for name in names}
        if port == 80:  # which browsers leave out
            names += ["127.0.0.1", "localhost"]
            self.origins |= {"http://127.0.0.1", "http://localhost"}
        self.hosts = set(names)
        self.policy = CONTENT + (LOCAL_FRAMES if framed else "'none'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self.policy
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        problem = self.refusal(scope)
        answer = self.app if problem is None else JSONResponse({"problem": problem, "remedy": ""}, status_code=403)
        await answer(scope, receive, send_with_headers)

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; None for one that is not."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This server answers only under its own address on this machine."
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins:
            return "This server answers only to its own page."
        # Browsers say where a request comes from; opening the page itself, also in a notebook's frame, may come from anywhere.
        opened = scope["path"] == "/" and scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opened:
            return "This server answers only to its own page."
        return None
