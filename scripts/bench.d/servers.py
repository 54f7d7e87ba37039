"""Starts and stops the servers that are measured, each with a fresh store."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import report
from api import Client, Refused

SHARES, THRESHOLD = 5, 3
START_DEADLINE = 30
UNSEAL_DEADLINE = 60
STOP_DEADLINE = 20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
POLICY = """
path "secret/data/*" { capabilities = ["create", "update", "read"] }
path "db/creds/*" { capabilities = ["read"] }
"""


class Failure(Exception):
    """Nothing can be measured."""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def until(deadline, what, attempt, pause=0.0005):
    """Repeats until it gives something; nothing in between but a short sleep."""
    end = time.monotonic() + deadline
    while True:
        found = attempt()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise Failure(f"{what} took more than {deadline} s")
        time.sleep(pause)


class Server:
    """One server process, MSSM or its peer, and what is needed to talk to it."""

    def __init__(self, name, folder, certificate, key):
        self.name = name
        self.folder = folder
        self.certificate = certificate
        self.port = free_port()
        self.log = folder / "log"
        self.process = None
        self.shares = []
        self.root_token = None
        folder.mkdir()
        self.configure(certificate, key)

    def configure(self, certificate, key):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def start(self):
        """Starts it; answers the seconds until its port accepted a connection."""
        with open(self.log, "ab") as log:
            begun = time.monotonic()
            self.process = subprocess.Popen(
                [str(part) for part in self.command()], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )
        until(START_DEADLINE, f"the start of {self.name}", self.accepts)
        return time.monotonic() - begun

    def accepts(self):
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Failure(f"{self.name} ended with code {self.process.returncode}:\n{tail}")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            return True
        return None

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            report.say(f"{self.name} did not stop within {STOP_DEADLINE} s and was killed")
            self.process.kill()
            self.process.wait()
        self.process = None

    def client(self, token=None):
        return Client(self.port, self.certificate, token)

    def initialise(self):
        body = {"secret_shares": SHARES, "secret_threshold": THRESHOLD}
        answer = self.client().send("PUT", "sys/init", body)
        self.shares, self.root_token = answer["keys"], answer["root_token"]

    def unseal(self, question):
        """Unseals; answers the seconds from the last share until `question` had its answer."""
        client = self.client(self.root_token)
        for share in self.shares[:THRESHOLD - 1]:
            client.send("PUT", "sys/unseal", {"key": share})
        begun = time.monotonic()
        client.send("PUT", "sys/unseal", {"key": self.shares[THRESHOLD - 1]})

        def ask():
            try:
                return client.send("GET", question)
            except Refused as refused:
                if refused.status < 500:
                    raise
                return None

        until(UNSEAL_DEADLINE, f"the first answer of {self.name}", ask)
        return time.monotonic() - begun

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise Failure(f"{self.name} has no VmRSS")

    def cpu_seconds(self):
        """Processor time of all its threads so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Mssm(Server):
    def __init__(self, binary, *args):
        self.binary = binary
        super().__init__("MSSM", *args)

    def configure(self, certificate, key):
        self.audit = self.folder / "audit.log"
        (self.folder / "mssm.toml").write_text(f"""
[server]
address = "127.0.0.1:{self.port}"
[tls]
certificate = "{certificate}"
key = "{key}"
[storage]
folder = "{self.folder / 'data'}"
[audit]
file = "{self.audit}"
# As the peer's: one file that grows.
rotate_bytes = 0
""")
        (self.folder / "mssm.toml").chmod(0o600)

    def command(self):
        return [self.binary, "server", "--config", self.folder / "mssm.toml"]

    def prepare_mounts(self, client):
        """`secret/` and `db/` are there from the start."""


class OpenBao(Server):
    def __init__(self, binary, *args):
        self.binary = binary
        super().__init__("OpenBao", *args)

    def configure(self, certificate, key):
        self.audit = self.folder / "audit.log"
        cluster = free_port()
        (self.folder / "raft").mkdir()
        (self.folder / "bao.hcl").write_text(f"""
storage "raft" {{
  path    = "{self.folder / 'raft'}"
  node_id = "bench"
}}
listener "tcp" {{
  address         = "127.0.0.1:{self.port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_cert_file   = "{certificate}"
  tls_key_file    = "{key}"
}}
api_addr     = "https://127.0.0.1:{self.port}"
cluster_addr = "https://127.0.0.1:{cluster}"
audit "file" "to-file" {{
  options = {{ file_path = "{self.audit}" }}
}}
""")

    def command(self):
        return [self.binary, "server", "-config", self.folder / "bao.hcl"]

    def prepare_mounts(self, client):
        client.send("PUT", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        client.send("PUT", "sys/mounts/db", {"type": "database"})


class Postgres:
    """A throw-away server that keeps its promises: fsync is on."""

    def __init__(self, root, folder):
        self.script = root / "scripts" / "postgres"
        self.folder = folder
        command = [self.script, "--durable", "start", folder]
        started = subprocess.run(command, capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise Failure(f"no PostgreSQL: {started.stderr}")
        self.port = int((folder / "port").read_text())
        self.password = (folder / "password").read_text().strip()
        self.environment = {
            **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "mssm_admin",
            "PGPASSWORD": self.password, "PGDATABASE": "postgres",
        }

    def run(self, sql):
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failure(f"psql: {done.stderr}")
        return done.stdout

    def pids(self):
        """Its first process and those that it has started."""
        first = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        found = subprocess.run(["pgrep", "-P", first], capture_output=True, text=True, check=False)
        return [int(pid) for pid in [first, *found.stdout.split()]]

    def stop(self):
        subprocess.run([self.script, "stop", self.folder], capture_output=True, check=False)


class Rig:
    """All that a run needs, each part made when it is first asked for."""

    def __init__(self, root, folder, binary, openbao, quick):
        self.root, self.folder = root, folder
        self.binary, self.openbao_binary = binary, openbao
        self.quick = quick
        self.ready = None
        self.database = None
        self.resident = {}

    def pair(self):
        """MSSM and OpenBao: initialised, unsealed, left alone for a while, then filled alike."""
        if self.ready is None:
            certificate, key = self.certificate()
            self.ready = [
                Mssm(self.binary, self.folder / "mssm", certificate, key),
                OpenBao(self.openbao_binary, self.folder / "openbao", certificate, key),
            ]
            for server in self.ready:
                server.start()
                server.initialise()
                server.unseal("auth/token/lookup-self")
            time.sleep(5)
            self.resident = {server.name: server.resident_mib() for server in self.ready}
            for server in self.ready:
                self.fill(server)
        return self.ready

    def certificate(self):
        certificate, key = self.folder / "tls.crt", self.folder / "tls.key"
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            raise Failure("openssl cannot make a certificate")
        key.chmod(0o600)
        return certificate, key

    def fill(self, server):
        """The same policy, token and secrets in both."""
        client = server.client(server.root_token)
        server.prepare_mounts(client)

        def first_secret():
            try:
                return client.send("PUT", "secret/data/first", {"data": {"value": "x"}})
            except Refused:
                # OpenBao's new mount is being prepared for a moment.
                return None

        until(10, f"the first secret of {server.name}", first_secret, pause=0.1)
        client.send("PUT", "sys/policies/acl/bench", {"policy": POLICY})
        body = {"policies": ["bench"], "ttl": "2h"}
        token = client.send("POST", "auth/token/create", body)["auth"]["client_token"]
        server.token = token
        server.token_file = server.folder / "token"
        server.token_file.touch(mode=0o600)
        server.token_file.write_text(token)

    def postgres(self):
        if self.database is None:
            # The server's user must be able to walk there, which it cannot below a home folder.
            self.database = Postgres(self.root, Path("/tmp") / f"mssm-bench-postgres.{os.getpid()}")
        return self.database

    def stop(self):
        for server in self.ready or []:
            server.stop()
        if self.database is not None:
            self.database.stop()
