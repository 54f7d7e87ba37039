"""A client of the API on one kept-alive HTTPS connection."""

import http.client
import json
import socket
import ssl

TIMEOUT = 30


class Refused(Exception):
    """The server answered, but not with success."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status


class Client:
    """Talks to one server; not for several threads."""

    def __init__(self, port, certificate, token=None):
        self.context = ssl.create_default_context(cafile=str(certificate))
        self.port = port
        self.token = token
        self.connection = None

    def send(self, method, path, body=None):
        """One request; answers the decoded body, or `Refused`."""
        if self.connection is None:
            self.connect()
        headers = {"X-Vault-Token": self.token} if self.token else {}
        try:
            payload = None if body is None else json.dumps(body)
            self.connection.request(method, "/v1/" + path, payload, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if answer.status >= 300:
            raise Refused(answer.status, text.decode(errors="replace")[:500])
        return json.loads(text) if text else {}

    def connect(self):
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=TIMEOUT, context=self.context
        )
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None
