"""Ten times as many clients as are served well: what those that are let in wait, and what goes on meanwhile."""

import contextlib
import os
import subprocess
import threading
import time

import report
from api import Refused
from database import connect, define
from load import LUA
from servers import Failure

# The other figures' load, and ten times that.
CONNECTIONS, TIMES = 64, 10
LEASES, SECRETS = 40, 1000


class Probe(threading.Thread):
    """One polite client; notes how long each answer took, by what it was."""

    def __init__(self, server, ask):
        super().__init__(daemon=True)
        self.server, self.ask, self.stopped = server, ask, threading.Event()
        self.good, self.shed, self.wrong = [], 0, []

    def run(self):
        # It must not wait for the load generators, which on another machine would not be in its way.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
        client = self.server.client(self.server.root_token)
        while not self.stopped.is_set():
            begun = time.monotonic()
            try:
                self.ask(client)
                self.good.append(time.monotonic() - begun)
            except Refused as refused:
                if refused.status == 429:
                    self.shed += 1
                else:
                    self.wrong.append(str(refused))
            except OSError as error:
                self.wrong.append(str(error))
            self.stopped.wait(0.005)

    def end(self):
        self.stopped.set()
        self.join()
        if self.wrong:
            raise Failure(f"{len(self.wrong)} wrong answers under load: {self.wrong[0]}")
        return sorted(self.good)


def p99(sorted_seconds):
    if not sorted_seconds:
        raise Failure("nothing was let in")
    return sorted_seconds[int(len(sorted_seconds) * 0.99)] * 1000


def flood(server, script, seconds, connections, *args):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", LUA / f"{script}.lua",
               f"https://127.0.0.1:{server.port}", "--", server.token_file, *args]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)


def probes(server, leases):
    numbers = iter(range(1_000_000_000))
    ends = iter(leases)
    asks = {
        "a read": lambda client: client.send("GET", "secret/data/bench/1"),
        "a write": lambda client: client.send(
            "PUT", f"secret/data/probe/{next(numbers) % 100}", {"data": {"a": "b"}}),
        "a renewal": lambda client: client.send("PUT", "sys/leases/renew", {"lease_id": leases[-1]}),
        "a health check": lambda client: client.send("GET", "sys/health"),
    }
    made = {name: Probe(server, ask) for name, ask in asks.items()}
    for probe in made.values():
        probe.start()
    return made, ends


def lost(client, leases, revoked):
    """Of the leases that were handed out, those that are not as they should be: the revoked gone, all others there."""
    def is_there(lease):
        try:
            client.send("PUT", "sys/leases/lookup", {"lease_id": lease})
        except Refused as refused:
            if refused.status != 400:
                raise
            return False
        return True

    return [lease for lease in leases if is_there(lease) == (lease in revoked)]


def overload(rig, out):
    """The rates of reads and writes, then ten times the connections of both at once."""
    seconds = 5 if rig.quick else 60
    connect(rig)
    server = rig.pair()[0]
    define(server, "overload", "1h")
    client = server.client(server.root_token)
    for number in range(1, SECRETS + 1):
        client.send("PUT", f"secret/data/bench/{number}", {"data": {"value": "x" * 100}})
    leases = [client.send("GET", "db/creds/overload")["lease_id"] for _ in range(LEASES)]
    made, _ = probes(server, leases)
    time.sleep(seconds / 5)
    quiet = {name: p99(probe.end()) for name, probe in made.items()}
    before = server.resident_mib()
    floods = [flood(server, "reads", seconds, CONNECTIONS * TIMES, str(SECRETS)),
              flood(server, "writes", seconds, CONNECTIONS * TIMES, "flood", "x" * 100)]
    made, ends = probes(server, leases)
    revoked = set()
    while any(one.poll() is None for one in floods):
        lease = next(ends, None)
        if lease is not None and lease != leases[-1]:
            # What ends access is never shed: an error here is the figure's end.
            client.send("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
            revoked.add(lease)
        time.sleep(seconds / 50)
    for one in floods:
        report.say(one.communicate()[0].strip().splitlines()[-1])
    for name, probe in made.items():
        crowded = p99(probe.end())
        goal = max(50, 2 * quiet[name])
        out.figure(f"p99 of {name} under 10x load, ms", {"MSSM": [crowded], "quiet": [quiet[name]]},
                   report.at_most(round(goal)), peer="quiet",
                   details={"let_in": len(probe.good), "shed": probe.shed})
    grown = server.resident_mib() - before
    out.figure("memory more under 10x load, MiB", {"MSSM": [grown]}, report.at_most(128))
    out.figure("leases lost under 10x load", {"MSSM": [len(lost(client, leases, revoked))]}, report.at_most(0),
               details={"handed_out": len(leases), "revoked": len(revoked)})
    out.note(f"{len(revoked)} leases were revoked under load, none was refused")
