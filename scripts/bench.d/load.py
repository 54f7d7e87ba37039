"""Runs wrk against a server and reads what it cost."""

import json
import resource
import subprocess
import time
from pathlib import Path

from machine import host_ticks
from servers import Failure

LUA = Path(__file__).resolve().parent


def run(server, script, seconds, connections, *args):
    """One run: rate, latencies, processor time; `Failure` if any request was not answered well."""
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
        "-s", LUA / f"{script}.lua", f"https://127.0.0.1:{server.port}", "--", server.token_file, *args,
    ]
    audit = server.audit.stat().st_size
    total, stolen = host_ticks()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, begun = server.cpu_seconds(), time.monotonic()
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    elapsed, cpu = time.monotonic() - begun, server.cpu_seconds() - cpu
    wrk = resource.getrusage(resource.RUSAGE_CHILDREN)
    now_total, now_stolen = host_ticks()
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise Failure(f"wrk: {done.stdout}{done.stderr}")
    found = json.loads(lines[-1])
    if found["errors"] or not found["requests"]:
        raise Failure(f"{script} against {server.name}: {found}\n{done.stdout}")
    audited = (server.audit.stat().st_size - audit) / found["requests"]
    # A request and a response; less would mean that answers left without their records.
    if audited < 400:
        raise Failure(f"{server.name} audits only {audited:.0f} bytes a request")
    return {
        "rate": found["requests"] / found["seconds"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "cpu_s_per_10k": cpu / found["requests"] * 10_000,
        "server_cores": cpu / elapsed,
        "wrk_cores": (wrk.ru_utime + wrk.ru_stime - own.ru_utime - own.ru_stime) / elapsed,
        "stolen": (now_stolen - stolen) / max(now_total - total, 1),
        "audit_bytes": audited,
    }


def rounds(servers, count, measure):
    """Interleaved, A B A B, so that what changes on the machine meets all of them."""
    samples = {server.name: [] for server in servers}
    for number in range(count):
        for server in servers:
            samples[server.name].append(measure(server, number))
    return samples
