"""Start, size, memory, KV under load, and a million leases."""

import re
import subprocess
import time

import load
import machine
import report
from servers import Failure

VALUE = "v" * 200
SECRETS = 1000
CONNECTIONS = 64


def start(rig, out):
    """From exec to the first accepted connection, and from the last share to the first secret."""
    counts = {"MSSM": 3 if rig.quick else 10, "OpenBao": 1 if rig.quick else 3}
    listening, answering = {}, {}
    for server in rig.pair():
        listening[server.name], answering[server.name] = [], []
        for _ in range(counts[server.name]):
            server.stop()
            listening[server.name].append(server.start() * 1000)
            answering[server.name].append(server.unseal("secret/data/first") * 1000)
    out.figure("start to listening, ms", listening, goal=report.at_most(50))
    out.figure("last share to first secret read, ms", answering, goal=report.at_most(20))


def size(rig, out):
    sizes = {"MSSM": [rig.binary.stat().st_size / 2**20],
             "OpenBao": [rig.openbao_binary.stat().st_size / 2**20]}
    out.figure("binary, MiB", sizes, goal=report.at_most(25))


def memory(rig, out):
    rig.pair()
    resident = {name: [mib] for name, mib in rig.resident.items()}
    out.figure("resident 5 s after unseal, MiB", resident, goal=report.at_most(20))


def reads(rig, out):
    """KV v2 over TLS, every request audited, a policy to be decided for each."""
    pair = rig.pair()
    count = 100 if rig.quick else SECRETS
    for server in pair:
        client = server.client(server.token)
        for number in range(1, count + 1):
            client.send("PUT", f"secret/data/bench/{number}", {"data": {"value": VALUE}})

    def measure(server, _):
        return load.run(server, "reads", 2 if rig.quick else 10, CONNECTIONS, str(count))

    for server in pair:
        load.run(server, "reads", 1, CONNECTIONS, str(count))
    samples = load.rounds(pair, 1 if rig.quick else 2, measure)
    under_load(out, "KV reads, 64 connections", samples, least=10, aim=15)


def writes(rig, out):
    """KV v2, each answer after the write is on the disk, each under a new name."""

    def measure(server, number):
        seconds = 2 if rig.quick else 10
        return load.run(server, "writes", seconds, CONNECTIONS, f"round-{number}", VALUE)

    samples = load.rounds(rig.pair(), 1 if rig.quick else 2, measure)
    under_load(out, "durable KV writes, 64 connections", samples, least=5, aim=8)


def verify(rig, out):
    """The audit log of a million records, verified with nothing but the public key."""
    server = rig.pair()[0]
    client = server.client(server.root_token)
    client.send("PUT", "secret/data/bench/1", {"data": {"value": VALUE}})
    least = 10_000 if rig.quick else 1_000_000
    while (records := count_lines(server.audit)) < least:
        load.run(server, "reads", 1 if rig.quick else 5, CONNECTIONS, "1")
    key = rig.folder / "audit.pub"
    key.write_text(client.send("GET", "sys/audit/key")["data"]["public_key"])
    begun = time.monotonic()
    command = [rig.binary, "audit", "verify", "-key", key, server.audit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise Failure(f"the audit log does not verify: {done.stdout}{done.stderr}")
    each = seconds / records * 1e6
    out.figure(f"{records:,} audit records verified, s a million", {"MSSM": [each]}, report.at_most(10))


def count_lines(file):
    with open(file, "rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))


def under_load(out, name, samples, least, aim):
    pick = lambda field: {who: [sample[field] for sample in all] for who, all in samples.items()}
    goal = report.at_least_times(least, aim)
    out.figure(f"{name}, requests/s", pick("rate"), goal=goal, details=samples)
    out.figure("  CPU seconds of the server for 10,000", pick("cpu_s_per_10k"))
    out.figure("  p50, ms", pick("p50_ms"))
    out.figure("  p99, ms", pick("p99_ms"))


def leases(rig, out):
    """A million leases in the lease manager itself, over a stub engine and a store in memory."""
    count = 20_000 if rig.quick else 1_000_000
    command = ["cargo", "run", "-q", "--release", "-p", "mssm-lease", "--example", "million", "--",
               str(count)]
    done = subprocess.run(command, cwd=rig.root, env=machine.with_cargo(), capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"the lease manager's measurement failed: {done.stderr[-2000:]}")
    million = f"{count:,} leases: "
    for name, pattern, goal in (
        (million + "resident bytes each", r"^(\d+) resident bytes a lease", report.at_most(250)),
        ("  unseal to first answer, ms", r"^first answer after (\d+) ms", report.at_most(100)),
        ("  all timers armed, s", r"^all timers armed after ([\d.]+) s", report.at_most(10)),
        ("  processor while nothing is due, ms in 5 s", r"^idle: (\d+) ms", None),
        ("  1,000 ends a second: latest, ms late", r"(\d+) ms at most$", report.at_most(1000)),
    ):
        found = re.search(pattern, done.stdout, re.MULTILINE)
        if found is None:
            raise Failure(f"the lease manager's measurement did not say {name.strip()}")
        out.figure(name, {"MSSM": [float(found.group(1))]}, goal=goal)
