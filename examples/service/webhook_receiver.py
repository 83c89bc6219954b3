"""A webhook that takes each message once, though it may be delivered twice.

Every second message is refused the first time, so that there is something to retry. With `--secret`, messages without
a valid signature are refused: give the service `SIGNING_SECRETS=shop-1=<the secret>`.

    python examples/service/webhook_receiver.py --port 9000
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

OLDEST_S = 300


def is_signed(secret: str, header: str, body: bytes) -> bool:
    """`t=<seconds>,v1=<HMAC-SHA256 of "<seconds>." and the body>`; an old one may be a repetition by somebody else."""
    at, _, digest = header.removeprefix("t=").partition(",v1=")
    if not at.isdigit() or abs(time.time() - int(at)) > OLDEST_S:
        return False
    expected = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, digest)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secret = ""
    refused: set[str] = set()  # noqa: RUF012  # shared on purpose: there is a handler for each connection
    seen: set[str] = set()  # noqa: RUF012  # the same; a real one keeps it where its data is

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # The task's id, without the number of the attempt.
        task, _, attempt = self.headers["X-Message-Key"].rpartition("|")
        if self.secret and not is_signed(self.secret, self.headers.get("X-Signature", ""), body):
            self.answer(401)
        elif crc32(task.encode()) % 2 and task not in self.refused and self.path != "/dead":
            self.refused.add(task)
            say(f"{task}: attempt {attempt} refused")
            self.answer(503)
        else:
            if task not in self.seen:
                self.seen.add(task)
                say(f"{task}: {body.decode()}")
            self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def say(line: str) -> None:
    """In one piece, with its end: connections have threads of their own."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=9000)
    options.add_argument("--secret", default="")
    given = options.parse_args()
    Receiver.secret = given.secret
    with ThreadingHTTPServer(("127.0.0.1", given.port), Receiver) as server:
        say(f"http://127.0.0.1:{server.server_port} listens")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
