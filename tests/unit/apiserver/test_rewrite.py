"""Links of proxied pages lead through the proxy again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from k1s.base.http import Stream
from k1s.server.apiserver.rewrite import MAX_TAG, Links

PREFIX = "/api/v1/namespaces/n/pods/p:1080/proxy"
LINKS = Links(PREFIX + "/", ("10.0.0.1:1080", "api:6443"))


def through(
    *chunks: bytes, content_type: str = "text/html; charset=utf-8", headers: list[tuple[str, str]] | None = None
) -> Stream:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return LINKS.answer(Stream(body(), 200, content_type, headers or []))


def read(answer: Stream) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in answer.chunks])

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/x?a=b#c", f"{PREFIX}/x?a=b#c"),
        ("x", "x"),
        ("#top", "#top"),
        (f"{PREFIX}/x", f"{PREFIX}/x"),
        ("http://10.0.0.1:1080/x/", f"{PREFIX}/x/"),
        ("http://elsewhere/x", "http://elsewhere/x"),
        ("//elsewhere/x", "//elsewhere/x"),
        ("mailto:/x", "mailto:/x"),
        ("http://[bad/x", "http://[bad/x"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert LINKS.url(url) == expected


def test_html_in_any_pieces() -> None:
    page = b"""<a href="/rewriteme">test</a><IMG alt='/a' src=/i.png><p title="/no"> 1 < 2 <a data-href="/no" href='/yes'>"""
    expected = (
        f'<a href="{PREFIX}/rewriteme">test</a><IMG alt=\'/a\' src={PREFIX}/i.png><p title="/no"> 1 < 2 '
        f"<a data-href=\"/no\" href='{PREFIX}/yes'>"
    ).encode()
    for size in (1, 7, 1000):
        pieces = [page[i : i + size] for i in range(0, len(page), size)]
        assert read(through(*pieces)) == expected


def test_what_is_not_html_stays() -> None:
    page = b'<a href="/x">'
    assert read(through(page, content_type="text/plain")) == page
    assert read(through(page, headers=[("Content-Encoding", "gzip")])) == page


def test_a_tag_without_end_is_not_held_back_for_ever() -> None:
    page = [b"<a " + b"x" * MAX_TAG, b"y", b"z"]
    assert read(through(*page)) == b"".join(page)


def test_location() -> None:
    assert through(headers=[("Location", "/there"), ("X", "/y")]).headers == [("Location", f"{PREFIX}/there"), ("X", "/y")]
