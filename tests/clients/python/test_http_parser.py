"""Our HTTP parser against an independent one, h11: where both take a request they must see the same one, and where
only one takes it there must be a reason that is named here."""

import json
import os
import random
import re
import subprocess
import unittest
from collections import Counter

import h11
from support import TARGET

PARSER = TARGET / "debug/examples/http_parser"
CASES = 200_000 if os.environ.get("TESTS_LONG") == "1" else 6_000
BOUND = 1_000_000
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"}

# Where we refuse what h11 takes, or waits for the rest of: the error, and what the bytes must contain for it.
STRICTER = {
    "LineEnd": (rb"(?<!\r)\n", "a line may end with LF alone there"),
    "FieldLine": (rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]|\n[ \t]", "control characters and folded lines are taken there"),
    "Origin": (rb"(?i)origin", "an Origin with a control character or whitespace, which has an error of its own"),
    "Version": (rb"HTTP/\d\.\d", "any version of one digit is taken there"),
    "Target": (rb"", "any visible characters are a target there"),
    "Host": (rb"", "any text is a host there, also two of them in HTTP/1.0"),
    "AmbiguousLength": (rb"(?i)content-length", "a transfer coding simply wins over a length there"),
    "TransferEncodingInHttp10": (rb"HTTP/1\.0", "HTTP/1.0 may have chunks there"),
    "ContentLength": (rb"(?i)content-length", "equal lengths are one there"),
    "BodyTooLarge": (rb"", "our bound for a body"),
    "HeadTooLarge": (rb"", "our bounds for a head"),
    "RequestLineTooLong": (rb"", "our bound for a request line"),
    "TrailersTooLarge": (rb"", "our bound for trailers"),
    "Chunk": (rb";[^\n]*([\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n])|[0-9a-fA-F]{17}|[^\n]{250}", "extensions of any bytes, any length and sizes over 64 bit"),
}
# Where we take what h11 refuses: what h11 says, what the bytes must contain, and why we are right.
LOOSER = [
    ("illegal chunk header", rb"[0-9a-fA-F][ \t]+;", "whitespace before an extension: RFC 9112 section 7.1.1, BWS"),
    ("illegal chunk header", rb"0{5}[0-9a-fA-F]{16}", "a size may have leading zeros: RFC 9112 section 7.1"),
]

TARGETS = ["/", "/socket.io/?EIO=4&transport=polling", "/a?b?c", "*", "http://a.example/x?y", "http://a.example?y", "a:80",
           "/%00", "/a#b", "//x", "", "/\x7f", "/\xe9", "https://u@h/", "ftp://x/", "/?http://x/"]
NAMES = ["Accept", "x-y", "X_Z", "Cookie", "Origin", "Upgrade", "Expect", "Bad Name", "Bad\t", "", "é", "a(b", "!#$%&'*+-.^_`|~"]
VALUES = ["", "x", " x ", "\tx\t", "a b", "a,\tb", "\x00", "a\x01b", "a\x0bb", "a\x7f", "é\xff", "a\rb", "x\r\n y", "a\nB: c",
          "100-continue", "websocket", ":", "x" * 9000, "\x0c"]
VERSIONS = ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.10", "HTTP/1", ""]
LENGTHS = ["0", "5", "05", "+5", "-5", "5,5", "5, 5", "5,6", "5 5", " 5 ", "0x5", "", "٥", "99999999999999999999", "1000001", "5\x0b"]
CODINGS = ["chunked", "Chunked", " chunked ", "gzip, chunked", "chunked, chunked", "identity", "", "chunked;q=1", "xchunked", "\x0bchunked"]
SIZES = ["{:x}", "{:X}", "0{:x}", "{:030x}", "+{:x}", "0x{:x}", " {:x}", "{:x} ", "{:x}\t", "{:x}\r", "{:x}\x0c", "{:x};a=b", "{:x} ;a",
         "{:x};\x01", "{:x}\x0b;a", '{:x};a="\r"', "{:x}g", "ffffffffffffffff{:x}", "-{:x}", "{:x};" + "e" * 300]
TELLING = b"\r\n\0 \t:;,/?#\"0159aAfF\x0b\x0c\x7f\x80\xff"


class Maker:
    """Requests from a seed: mostly valid ones, each with few oddities, then perhaps a changed byte."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def odd(self, usual, unusual, chance=0.07):
        return self.random.choice(unusual if self.random.random() < chance else usual)

    def chunks(self):
        text = ""
        for _ in range(self.random.randrange(4)):
            size = self.random.randrange(1, 20)
            text += self.odd(["{:x}"], SIZES, 0.3).format(size) + self.odd(["\r\n"], ["\n", "\r", "\r\r\n"], 0.03)
            text += "".join(self.random.choices("ab\r\n0:", k=size)) + self.odd(["\r\n"], ["\n", "", "x\r\n"], 0.03)
        text += self.odd(["0"], ["00", "0;x", "0 ", "0" * 30, "0\r"]) + "\r\n"
        for _ in range(self.odd([0], [1, 2])):
            text += self.field(0.2)
        return text + self.odd(["\r\n"], ["\n", ""], 0.03)

    def field(self, chance):
        name, value = self.odd(NAMES[:4], NAMES, chance), self.odd(["x", "a b", ""], VALUES, chance)
        return name + self.odd([": ", ":"], [" :", ":\t", "", "\t:", ":  "], 0.04) + value + self.odd(["\r\n"], ["\n", "\r", "\r\r\n"], 0.03)

    def request(self):
        space = lambda: self.odd([" "], ["  ", "\t", "", "\x0b"], 0.02)
        text = self.odd([""], ["\r\n", "\n", "\r", " ", "\r\n\r\n"], 0.05)
        text += self.odd(["GET", "POST", "OPTIONS"], ["get", "PURGE", "CONNECT", "HEAD", "P(", "", "é", "TRACE", "M-SEARCH"]) + space()
        text += self.odd(TARGETS[:3], TARGETS) + space()
        text += self.odd(["HTTP/1.1"], VERSIONS) + self.odd(["\r\n"], ["\n", " \r\n", "\r\r\n"], 0.03)
        fields = ["Host: " + self.odd(["a.example", "[::1]:80"], ["", "a b", "a,b", "x:y", "\xff"]) + "\r\n"] * self.odd([1], [0, 2])
        fields += [self.field(0.15) for _ in range(self.odd([0, 1, 2, 3], [99, 101], 0.01))]
        for value in [self.odd(["keep-alive", "close"], ["Close", "x, close", "closed", "upgrade"])] * self.odd([0], [1, 2], 0.3):
            fields.append(f"Connection: {value}\r\n")
        body, kind = "", self.random.random()
        if kind < 0.35:
            for _ in range(self.odd([1], [2], 0.08)):
                name = self.odd(["Content-Length: "], ["content-length:", "Content-Length : "], 0.1)
                fields.append(name + self.odd(["5"], LENGTHS, 0.3) + "\r\n")
            body = self.odd(["abc\r\n", "GET /"], ["abcd", "abcdef"], 0.1)
        if kind > 0.6 or kind < 0.02:
            for _ in range(self.odd([1], [2], 0.05)):
                fields.append("Transfer-Encoding: " + self.odd(["chunked"], CODINGS, 0.2) + "\r\n")
            body = self.chunks()
        self.random.shuffle(fields)
        return text + "".join(fields) + self.odd(["\r\n"], ["\n", "", "\r\r\n"], 0.02) + body

    def case(self):
        text = "".join(self.request() for _ in range(self.odd([1], [2, 3], 0.3)))
        data = bytearray(text.encode("latin-1", "replace"))
        if self.random.random() < 0.2:
            for _ in range(self.random.randrange(1, 3)):
                at = self.random.randrange(len(data) + 1)
                data[at:at + self.random.randrange(3)] = bytes(self.random.choices(TELLING, k=self.random.randrange(3)))
        if self.random.random() < 0.05:
            del data[self.random.randrange(len(data) + 1):]
        return bytes(data) or b"G"


def split_target(method, target):
    """Path and query, as RFC 9112 section 3.2 has them."""
    if method == "CONNECT" or target == "*":
        return target, ""
    target = re.sub(r"(?i)^https?://[^/?]*", "", target)
    path, _, query = target.partition("?")
    return path, query


def h11_reads(data):
    """What h11 makes of the same bytes, in the form of ours."""
    requests = []
    while data:
        # RFC 9112 section 2.2 asks a server to skip an empty line before a request; h11 leaves that to its user.
        if data.startswith(b"\r\n"):
            data = data[2:]
        if not data:
            return requests, "more"
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=BOUND)
        request, body = None, b""
        try:
            connection.receive_data(data)
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return requests, "more"
                if isinstance(event, h11.Request):
                    request = event
                else:
                    body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            return requests, f"refused: {error}"
        method, version = request.method.decode(), request.http_version.decode()
        path, query = split_target(method, request.target.decode())
        requests.append({
            "method": method if method in METHODS else "UNKNOWN",
            "version": version,
            "path": path,
            "query": query,
            "keep_alive": connection.their_state is not h11.MUST_CLOSE,
            "fields": [[name.decode(), value.decode("latin-1")] for name, value in request.headers],
            "body": body.decode("latin-1"),
        })
        data = connection.trailing_data[0]
    return requests, "end"


def difference(data, ours, theirs, counts):
    """None when there is none, or one with a name; otherwise what it is."""
    (our_requests, our_end), (their_requests, their_end) = ours, theirs
    for mine, other in zip(our_requests, their_requests):
        # h11 keeps no connection of HTTP/1.0, nor one that asks for another protocol.
        switches = mine["method"] == "CONNECT" or any(name == "upgrade" for name, _ in mine["fields"])
        skipped = {"keep_alive"} if mine["version"] == "1.0" or switches else set()
        # It writes this one value in lower case.
        mine["fields"] = [[name, value.lower() if name == "transfer-encoding" else value] for name, value in mine["fields"]]
        for key in sorted(mine.keys() - skipped):
            if mine[key] != other[key]:
                return f"{key}: {mine[key]!r}, h11 {other[key]!r}"
        counts["requests seen alike"] += 1
    refused = their_end.startswith("refused")
    if len(our_requests) == len(their_requests):
        if our_end == their_end or (our_end not in ("end", "more") and refused):
            counts["refused by both" if refused else "taken by both"] += 1
            return None
    if our_end not in ("end", "more") and len(our_requests) <= len(their_requests):
        if len(our_requests) == len(their_requests) and their_end == "more":
            # It looks at a head when all of it is there; we refuse a line as soon as it is complete.
            counts["refused earlier"] += 1
            return None
        pattern, _ = STRICTER.get(our_end, (None, None))
        if pattern is not None and re.search(pattern, data, re.DOTALL):
            counts[f"only ours refuses: {our_end}"] += 1
            return None
    if refused and len(their_requests) <= len(our_requests):
        for says, pattern, _ in LOOSER:
            if says in their_end and re.search(pattern, data):
                counts["only h11 refuses, and is wrong"] += 1
                return None
    return f"{our_end} after {len(our_requests)}, h11: {their_end} after {len(their_requests)}"


class HttpParser(unittest.TestCase):
    def test_sees_the_same_requests_as_h11_or_has_a_named_reason(self):
        cases = [Maker(seed).case() for seed in range(CASES)]
        lines = "".join(case.hex() + "\n" for case in cases)
        result = subprocess.run([PARSER], input=lines, capture_output=True, text=True, check=True, timeout=300)
        found = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(len(found), len(cases))
        counts, failures = Counter(), []
        for seed, (case, ours) in enumerate(zip(cases, found)):
            what = difference(case, (ours["requests"], ours["end"]), h11_reads(case), counts)
            if what:
                failures.append(f"case {seed}, {case!r}:\n    {what}")
        print(f"\n{len(cases)} cases: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
        self.assertFalse(failures, f"{len(failures)} unnamed differences:\n" + "\n".join(failures[:20]))
        # A corpus that is all refused would compare nothing.
        self.assertGreater(counts["requests seen alike"], CASES // 3)


if __name__ == "__main__":
    unittest.main()
