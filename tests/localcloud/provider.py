"""An OAuth2 provider outside the VPC, run as a program: whom a browser says it is, openQA hears.

Its arguments: its address; a file with its certificate and key; a file with its one client, as openQA's
sign-in secret has it, and the address to which that client may have people sent back. The cookie ``person``
tells who a browser's user is.
"""

from __future__ import annotations

import json
import secrets
import ssl
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT = json.loads(Path(sys.argv[3]).read_text())
CODES: dict[str, str] = {}  # who may be asked for once by each code
TOKENS: dict[str, str] = {}


class Provider(BaseHTTPRequestHandler):
    """The grant by authorization code of RFC 6749, and an address that tells who somebody is."""

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/authorize":
            asked = [query.get(name) for name in ("response_type", "client_id", "redirect_uri", "scope")]
            if asked != [["code"], [CLIENT["key"]], [CLIENT["callback"]], ["openid profile"]]:
                return self._answer(400, {"error": "invalid_request", "asked": asked})
            code = secrets.token_urlsafe()
            CODES[code] = SimpleCookie(self.headers["Cookie"])["person"].value
            more = {"code": code, "state": query["state"][0]} if "state" in query else {"code": code}
            self.send_response(302)
            self.send_header("Location", f"{CLIENT['callback']}?{urlencode(more)}")
            return self.end_headers()
        kind, _, token = (self.headers["Authorization"] or "").partition(" ")
        if path != "/user" or kind != "Bearer" or token not in TOKENS:
            return self._answer(401, {"error": "invalid_token"})
        person = TOKENS[token]
        return self._answer(200, {"id": person, "nickname": person, "name": person.title()})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        wanted = {
            "grant_type": "authorization_code",
            "client_id": CLIENT["key"],
            "client_secret": CLIENT["secret"],
            "redirect_uri": CLIENT["callback"],
        }
        person = CODES.pop(form.get("code", [""])[0], None)
        if person is None or any(form.get(name) != [value] for name, value in wanted.items()):
            return self._answer(400, {"error": "invalid_grant"})
        token = secrets.token_urlsafe()
        TOKENS[token] = person
        return self._answer(200, {"access_token": token, "token_type": "Bearer"})

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer((sys.argv[1], 443), Provider)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
