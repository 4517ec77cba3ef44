"""Tests of sipgw.modules.mi_html: a real server on a port of the kernel's choice, and Twisted's Agent."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

from twisted.web.client import PartialDownloadError, ResponseFailed, readBody

from sipgw.modules.mi_html import MiHtml
from tests.modules.test_mi_http import ServerTests


class MiHtmlTests(ServerTests):
    """Pages."""

    async def begin(self, **parameters: Any) -> None:
        """Start the module beside httpd."""
        await self.start(http={"root": "json"})
        self.module = self.server.add(MiHtml(self.server, httpd=self.httpd, **parameters))
        await self.module.start()

    async def get(self, path: str, arg: str | None = None, **headers: str) -> tuple[int, str]:
        """The status and the text of a page."""
        if arg is not None:
            path += f"?arg={quote(arg)}"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _media, text = await self.post(b"", path=path, method="GET", **fields)
        return status, text

    async def run_command(self, name: str, arg: str) -> str:
        """What a command answers."""
        status, text = await self.get(f"mi/{name.partition(':')[0]}/{name}", arg)
        found = re.search("<pre>(.*)</pre>", text, re.DOTALL)
        assert status == 200 and found is not None, (status, text)
        return unescape(found[1])

    async def test_pages(self) -> None:
        """From the first page a browser finds the modules, their commands, and each command's form."""
        await self.begin()
        for path, expected in (
            ("mi", '<a href="/mi/echo">echo</a>'),
            ("mi/", '<a href="/mi/httpd">httpd</a>'),
            ("mi/echo", '<li><a href="/mi/echo/echo:say">echo:say</a> Say it again.</li>'),
            ("mi/echo", "<b>echo</b>"),
            ("mi/echo/echo:say", '<form method="get"><input name="arg"'),
            ("mi/echo/echo%3Asay", "<p>Parameters: text</p>"),
        ):
            status, text = await self.get(path)
            self.assertEqual(status, 200, path)
            self.assertIn(expected, text)
        for path in ("mi/nosuch", "mi/echo/echo:nosuch", "mi/echo/say", "mi/echo/echo:say/x"):
            self.assertEqual((await self.get(path))[0], 404, path)

    async def test_run(self) -> None:
        """A form runs a command, with an array or an object of parameters, and shows what it answers."""
        await self.begin()
        self.assertEqual(await self.run_command("echo:say", '["hé"]'), '"hé"')
        self.assertEqual(await self.run_command("echo:say", '{"text": "x"}'), '"x"')
        self.assertEqual(await self.run_command("echo:say", ""), '{\n\t"code":\t-32602,\n\t"message":\t"Invalid params",\n'
            '\t"data":\t"Too few or too many parameters"\n}')
        self.assertEqual(await self.run_command("httpd:list_root_path", ""), "[\n\t{\n\t\t\"http_root\":\t\"json\",\n"
            '\t\t"module":\t"mi_http"\n\t},\n\t{\n\t\t"http_root":\t"mi",\n\t\t"module":\t"mi_html"\n\t}\n]')

    async def test_wrong_argument(self) -> None:
        """What is neither array nor object is not run."""
        await self.begin()
        for arg in ("nonsense", "5", '"x"', "[" * 5000, "\0"):
            status, text = await self.get("mi/echo/echo:say", arg)
            self.assertEqual(status, 400)
            self.assertIn("Parameters are a JSON array", text)

    async def test_escaped(self) -> None:
        """Text from commands and requests is never markup; no page may have script."""
        await self.begin()
        status, text = await self.get("mi/echo/echo:say", '["<script>alert(1)</script>\\"\'&"]')
        self.assertEqual((status, "<script" in text), (200, False))
        self.assertEqual(await self.run_command("echo:say", '["<b>&"]'), '"<b>&"')
        self.assertNotIn("<script", (await self.get("mi/%3Cscript%3E"))[1])
        response = await self.send(b"", "mi", "GET", "text/plain")
        self.assertIn("default-src 'none'", response.headers.getRawHeaders("Content-Security-Policy")[0])
        await readBody(response)

    async def test_long(self) -> None:
        """A long answer arrives whole; one that breaks off does not look whole."""
        await self.begin()
        self.assertEqual((await self.run_command("echo:count", "[5000]")).count("\n"), 5001)
        self.echo.fail_at = 4000
        with self.assertRaises((ResponseFailed, PartialDownloadError)):
            await self.run_command("echo:count", "[5000]")

    async def test_other_sites(self) -> None:
        """No page of another server can run a command here; a browser that came from here, or from nowhere, can."""
        await self.begin()
        here = f"127.0.0.1:{self.httpd.listening_port}"
        for headers, expected in (
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Sec_Fetch_Site": "same-origin"}, 200),
            ({"Sec_Fetch_Site": "none"}, 200),
            ({"Referer": "http://evil.example/"}, 403),
            ({"Referer": f"http://{here}/mi"}, 200),
            ({"Referer": "http://[::1"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": f"http://{here}"}, 200),
        ):
            self.assertEqual((await self.get("mi/echo/echo:say", '["x"]', **headers))[0], expected, headers)
        self.assertEqual((await self.get("mi/echo/echo:say", Sec_Fetch_Site="cross-site"))[0], 200)

    async def test_post(self) -> None:
        """With http_method 1 forms are sent by POST, and commands run by nothing else."""
        await self.begin(http_method=1)
        self.assertIn('<form method="post">', (await self.get("mi/echo/echo:say"))[1])
        body = urlencode({"arg": '["x"]'}).encode()
        form = "application/x-www-form-urlencoded"
        status, _media, text = await self.post(body, path="mi/echo/echo:say", media=form)
        self.assertEqual((status, "<pre>\"x\"</pre>" in text), (200, True))
        self.assertEqual((await self.get("mi/echo/echo:say", '["x"]'))[0], 405)
        self.assertEqual((await self.post(b"", path="mi", method="PUT"))[0], 405)

    async def test_root(self) -> None:
        """root gives the path; when the module stops there is nothing."""
        await self.begin(root="pages")
        self.assertIn('href="/pages/echo"', (await self.get("pages"))[1])
        await self.module.stop()
        self.assertEqual((await self.get("pages"))[0], 404)
        for name, value in (("root", "a/b"), ("root", "/"), ("http_method", 2)):
            self.assertRaises(ValueError, MiHtml, None, **{name: value})


del ServerTests
