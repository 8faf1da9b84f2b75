"""The CNI plugin where no C compiler was at hand: the same as packaging/cni/k1s-cni.c, run as `python -IS`.

Owns: nothing; hands a call to the agent's socket and prints the answer. Called by: containerd, as the file that
cni.install wrote. Never does: import anything but posix and _socket, which keeps its start at a third of Python's usual.
"""

import _socket
import posix

_LIMIT = 1 << 20
_SUPPORTED = '["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]'


def _read(source: "_socket.socket | int") -> bytes:
    data = b""
    while len(data) < _LIMIT:
        part = posix.read(source, 65536) if isinstance(source, int) else source.recv(65536)
        if not part:
            break
        data += part
    return data


def _value(text: bytes, key: bytes) -> bytes:
    """The string value of a JSON key; an escaped quote inside a string cannot look like one."""
    _, found, rest = text.partition(b'"' + key + b'"')
    rest = rest.lstrip(b" \t\r\n:")
    return rest[1:].partition(b'"')[0] if found and rest.startswith(b'"') else b""


def _print(text: bytes) -> None:
    while text:
        text = text[posix.write(1, text) :]


def _fail(version: bytes, code: int, message: str, details: str = "") -> int:
    _print(b'{"cniVersion":"%s","code":%d,"msg":"%s","details":"%s"}\n' % (version, code, message.encode(), details.encode()))
    return 1


def main(name: str) -> int:
    environ = posix.environ
    stdin = _read(0)
    version = _value(stdin, b"cniVersion") or b"1.0.0"
    command = environ.get(b"CNI_COMMAND")
    if command is None:
        return _fail(version, 4, "CNI_COMMAND is not set")
    if command == b"VERSION":
        _print(b'{"cniVersion":"1.1.0","supportedVersions":' + _SUPPORTED.encode() + b"}\n")
        return 0
    if name.rpartition("/")[2] == "loopback":
        if command == b"ADD":
            netns = environ.get(b"CNI_NETNS", b"")
            _print(b'{"cniVersion":"%s","interfaces":[{"name":"lo","sandbox":"%s"}],"ips":[]}\n' % (version, netns))
        return 0
    path = _value(stdin, b"socket")
    if not path:
        return _fail(version, 7, "the network configuration has no key socket")
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.connect(path)
        variables = b"".join(k + b"=" + v + b"\0" for k, v in environ.items() if k.startswith(b"CNI_"))
        agent.sendall(variables + b"\0" + stdin)
        agent.shutdown(_socket.SHUT_WR)
        answer = _read(agent)
    except OSError as error:
        return _fail(version, 11, "the k1s agent does not answer (is it running?)", posix.strerror(error.errno or 0))
    code, found, body = answer.partition(b"\n")
    if not found:
        return _fail(version, 11, "the k1s agent closed the connection before it answered")
    _print(body)
    return int(code)


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[0]))
