"""A small metadata service on loopback, which wants a token as EC2's does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer:
    """Answers 404 until there is a notice.

    Attributes:
        url: where it answers.
        notice: what is answered, or None.
        token: the one that counts; another value makes old ones run out.
        asked: paths that were asked for with a good token.
    """

    def __init__(self) -> None:
        self.notice: dict[str, str] | None = None
        self.token = "first"
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                known = self.path == "/latest/api/token"
                allowed = known and 0 < int(self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", 0)) <= 21600
                self._answer(200 if allowed else 400, outer.token)

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") != outer.token:
                    return self._answer(401, "")
                outer.asked.append(self.path)
                if self.path != "/latest/meta-data/spot/instance-action" or outer.notice is None:
                    return self._answer(404, "")
                return self._answer(200, json.dumps(outer.notice))

            def _answer(self, code: int, text: str) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
