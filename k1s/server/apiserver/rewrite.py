"""Links in what a proxied pod or Service answers, turned so that they lead through the proxy again.

Owns: the attributes of HTML that hold addresses, the Location header. Called by: subresources/proxy.
Never does: touch other than text/html, or a body that is compressed. Bound: MAX_TAG of a tag that does not end is held back.
Source: apimachinery/pkg/util/proxy/transport.go.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from k1s.base.http import Stream

MAX_TAG = 64 * 1024
_ATTRIBUTES = {
    "a": "href", "applet": "codebase", "area": "href", "audio": "src", "base": "href", "blockquote": "cite",
    "body": "background", "button": "formaction", "command": "icon", "del": "cite", "embed": "src", "form": "action",
    "frame": "longdesc src", "head": "profile", "html": "manifest", "iframe": "longdesc src", "img": "longdesc src usemap",
    "input": "src usemap formaction", "ins": "cite", "link": "href", "object": "classid codebase data usemap", "q": "cite",
    "script": "src", "source": "src", "video": "poster src",
}  # fmt: skip
_TAG = re.compile(rb"<([A-Za-z]+)(\s[^>]*)>")
_ATTRIBUTE = re.compile(rb"""(\s)([A-Za-z]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""")


class Links:
    """`prefix`: the path before what was asked for; `hosts`: what the target calls itself."""

    def __init__(self, prefix: str, hosts: tuple[str, ...]) -> None:
        self._prefix, self._hosts = prefix.rstrip("/"), hosts

    def answer(self, answer: Stream) -> Stream:
        """The same answer with its links turned."""
        headers = [(n, self.url(v) if n.lower() == "location" else v) for n, v in answer.headers]
        encoding = next((v for n, v in headers if n.lower() == "content-encoding"), "")
        chunks = answer.chunks
        if answer.content_type.partition(";")[0].strip().lower() == "text/html" and not encoding:
            chunks = self._html(chunks)
        return Stream(chunks, answer.status, answer.content_type, headers)

    def url(self, url: str) -> str:
        """Only absolute paths are turned, and only those of the target itself."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return url
        if (parts.netloc and parts.netloc not in self._hosts) or not parts.path.startswith("/"):
            return url
        if parts.path.startswith(self._prefix + "/") or parts.scheme not in ("", "http", "https"):
            return url
        return urlunsplit(("", "", self._prefix + parts.path, parts.query, parts.fragment))

    async def _html(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        rest = b""
        try:
            async for chunk in chunks:
                rest += chunk
                open_tag = rest.rfind(b"<")
                whole = len(rest) if open_tag < rest.rfind(b">") + 1 or len(rest) - open_tag > MAX_TAG else open_tag
                if whole:
                    yield _TAG.sub(self._tag, rest[:whole])
                    rest = rest[whole:]
            if rest:
                yield rest
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _tag(self, match: re.Match[bytes]) -> bytes:
        names = _ATTRIBUTES.get(match[1].decode().lower(), "").split()

        def attribute(found: re.Match[bytes]) -> bytes:
            if found[2].decode().lower() not in names:
                return found[0]
            quote = found[4][:1] if found[4][:1] in (b'"', b"'") else b""
            value = found[4][1:-1] if quote else found[4]
            url = self.url(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            return b"".join((found[1], found[2], found[3], quote, url, quote))

        return b"<" + match[1] + _ATTRIBUTE.sub(attribute, match[2]) + b">" if names else match[0]
