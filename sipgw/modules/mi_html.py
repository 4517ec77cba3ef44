"""The module mi_html: a form for each management command, for a browser.

``/mi`` shows the modules, ``/mi/module`` its commands, ``/mi/module/module:command`` the form of one; with ``arg``, a JSON array
or object of parameters, that command is run. A page elsewhere cannot run one in the browser of whoever looks at it: what the
browser says of where a request comes from must be this server. Pages have no script, and all that comes from commands is escaped
(hardening P23)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from itertools import chain
from time import ctime
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from sipgw import __version__
from sipgw.exports import param, requires
from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._mi_trace import Ends, MiTrace
from sipgw.modules.httpd import Httpd, ends_of, one_part
from sipgw.web.answers import Answer, AnsweringResource
from sipgw.web.site import Refusal

STYLE = "body{font-family:sans-serif;margin:2em}nav a,nav b{margin-right:1em}li{margin:.3em 0}pre{background:#eee;padding:1em}"
FOOT = "\n</body></html>\n"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def check_method(value: int) -> None:
    """Refuse what names no method."""
    if value not in (0, 1):
        raise ValueError("write 0 for GET or 1 for POST")


class MiHtml(MiTrace):
    """Shows management commands as web pages, at ``/mi`` of the module httpd."""

    name = "mi_html"
    backend = "http"

    root: str = param("mi", "The path of the pages, without its slash", check=one_part)
    http_method: int = param(0, "How forms are sent: 0 by GET, 1 by POST", check=check_method)
    httpd: Httpd = requires("httpd")

    async def start(self) -> None:
        """Show the pages."""
        await super().start()
        root = self.root.strip("/")
        self.httpd.mount(root, Pages(self, root, "POST" if self.http_method else "GET"), self.name)

    async def stop(self) -> None:
        """Show nothing any more."""
        self.httpd.unmount(self.root)


class Pages(AnsweringResource):
    """The pages below one path."""

    def __init__(self, module: MiHtml, root: str, method: str) -> None:
        super().__init__("mi_html", module.server.user.log)
        self._module = module
        self._server = module.server
        self._root = f"/{quote(root)}"
        self._method = method

    def refusal(self, request: Any) -> Refusal | None:
        """Pages are there for GET and POST; commands are run only for those who come from here."""
        if request.method not in (b"GET", b"POST"):
            return Refusal(405, "GET a page, or POST its form.", {"Allow": "GET, POST"})
        if _argument(request) is not None:
            if request.method.decode() != self._method:
                return Refusal(405, f"Forms are sent by {self._method} here.", {"Allow": self._method})
            if _is_foreign(request):
                return Refusal(403, "Another site wants to run a command here.")
        return None

    async def answer(self, request: Any) -> Answer:
        """One page."""
        parts = [unquote(part.decode("ascii", "replace")) for part in request.postpath if part]
        module, command = (parts + ["", ""])[:2]
        names = self._server.commands.names()
        if len(parts) > 2 or (module and module not in _modules(names)) or (command and command not in names):
            return Answer(iter([self._page(module, "<p>There is nothing here.</p>")]), HEADERS, 404)
        if not command:
            return Answer(iter([self._page(module, self._list(module))]), HEADERS)
        asked = _argument(request)
        if asked is None:
            return Answer(iter([self._page(module, self._form(command))]), HEADERS)
        return await self._result(module, command, asked, ends_of(request))

    async def _result(self, module: str, command: str, asked: str, ends: Ends) -> Answer:
        """The page with the result of one command, or its error."""
        try:
            params = json.loads(asked) if asked.strip() else []
        except (ValueError, RecursionError):
            params = None
        if not isinstance(params, list | dict):
            text = '<p>Parameters are a JSON array or object, such as ["all"] or {"name": "x"}.</p>'
            return Answer(iter([self._page(module, self._form(command, asked) + text)]), HEADERS, 400)
        shown = self._module.show_command(command, params, ends)
        try:
            result = await self._server.commands.call(command, params)
        except MIError as error:
            result = {"code": error.code, "message": error.message}
            if error.data is not None:
                result["data"] = error.data
        pieces = jsonrpc.pieces(result, pretty=True)
        if shown:
            first = next(pieces, b"")
            self._module.show_answer(shown, first.decode("utf-8", "replace"), ends)
            pieces = chain((first,), pieces)
        before = self._head(module) + self._form(command, asked) + "<pre>"
        return Answer(chain([_octets(before)], _escaped(pieces), [_octets(f"</pre>{FOOT}")]), HEADERS)

    def _page(self, module: str, inside: str) -> bytes:
        """A whole page."""
        return _octets(self._head(module) + inside + FOOT)

    def _head(self, module: str) -> str:
        """How a page begins."""
        started = escape(ctime(self._server.user.started))
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>sipgw: management</title><style>{STYLE}</style>'
            f"</head>\n<body><h1>Management interface</h1>\n<p>sipgw {escape(__version__)}, running since {started}</p>\n"
            f"<nav>{self._navigation(module)}</nav>\n"
        )

    def _navigation(self, current: str) -> str:
        modules = _modules(self._server.commands.names())
        return " ".join(
            f"<b>{escape(module)}</b>" if module == current else f'<a href="{self._root}/{quote(module)}">{escape(module)}</a>'
            for module in modules
        )

    def _list(self, module: str) -> str:
        """The commands of one module, each with what it does."""
        if not module:
            return ""
        items = []
        for name in self._server.commands.names():
            if name.startswith(f"{module}:"):
                link = f'<a href="{self._root}/{quote(module)}/{quote(name, safe=":")}">{escape(name)}</a>'
                items.append(f"<li>{link} {escape(self._server.commands.find(name).help)}</li>")
        return f"<ul>{''.join(items)}</ul>"

    def _form(self, command: str, value: str = "") -> str:
        """The form of one command."""
        found = self._server.commands.find(command)
        recipes = " or ".join(escape(", ".join(recipe)) or "none" for recipe in found.recipes)
        return (
            f"<h2>{escape(command)}</h2>\n<p>{escape(found.help)}</p>\n<p>Parameters: {recipes}</p>\n"
            f'<form method="{self._method.lower()}"><input name="arg" size="60" value="{escape(value)}"> '
            '<input type="submit" value="Run"></form>\n'
        )


def _modules(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(":")[0] for name in names))


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _escaped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield escape(piece.decode(), quote=False).encode()


def _argument(request: Any) -> str | None:
    """What the form says, None where it was not sent."""
    query = request.content.getvalue() if request.method == b"POST" else request.uri.partition(b"?")[2]
    found = parse_qs(query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100) if query else {}
    return found["arg"][-1] if "arg" in found else None


def _is_foreign(request: Any) -> bool:
    """Whether a browser sent ``request`` for a page of another server (Fetch Metadata; Origin, RFC 6454; Referer).

    What is no browser says nothing of this, and may come."""
    if request.getHeader("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        return True
    host = (request.getHeader("Host") or "").lower()
    for name in ("Origin", "Referer"):
        value = request.getHeader(name)
        if value is not None and _netloc(value) != host:
            return True
    return False


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:
        return None
