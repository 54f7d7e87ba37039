"""Logins: how fast they are made, and how soon they end."""

import base64
import hashlib
import hmac
import os
import re
import statistics
import subprocess
import threading
import time

import load
import machine
import report
from servers import Failure

CLIENTS = 8
# How many mint at once, each count over as many connections to PostgreSQL.
MINTING = (1, 8, 32)
# Sessions that drop roles when PostgreSQL's own rate is taken: as many as MSSM revokes on.
DROPPING = 4
CREATION = [
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    "GRANT bench_reader TO \"{{name}}\"",
]
# How long the expiry of 1,000 logins is waited for; OpenBao needs about half a minute.
GONE_DEADLINE = 75
POLL = 0.1


def connect(rig):
    """The same connection in both servers, through the same request."""
    postgres = rig.postgres()
    if not postgres.run("SELECT 1 FROM pg_roles WHERE rolname = 'bench_reader'"):
        postgres.run("CREATE ROLE bench_reader")
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/postgres"
        for server in rig.pair():
            client = server.client(server.root_token)
            for clients in MINTING:
                client.send("PUT", f"db/config/bench-{clients}", {
                    "plugin_name": "postgresql-database-plugin",
                    "connection_url": f"{url}?sslmode=disable",
                    "username": "mssm_admin",
                    "password": postgres.password,
                    "allowed_roles": ["*"],
                    "max_open_connections": clients,
                    "max_idle_connections": clients,
                    "password_authentication": "scram-sha-256",
                })
    return postgres


def define(server, name, ttl, clients=CLIENTS, **more):
    body = {"db_name": f"bench-{clients}", "creation_statements": CREATION, "default_ttl": ttl,
            "max_ttl": ttl, **more}
    server.client(server.root_token).send("PUT", f"db/roles/{name}", body)


def verifier(rounds):
    """A SCRAM verifier made before the clock starts: PostgreSQL's own rate is without this work."""
    salt, password = os.urandom(16), base64.b64encode(os.urandom(18))
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
    keyed = lambda text: hmac.digest(salted, text, "sha256")
    text = lambda raw: base64.b64encode(raw).decode()
    stored = hashlib.sha256(keyed(b"Client Key")).digest()
    return f"SCRAM-SHA-256${rounds}:{text(salt)}${text(stored)}:{text(keyed(b'Server Key'))}"


def pgbench_script(rig, rounds):
    """What MSSM sends for one login, as PostgreSQL's log shows it: one text, one transaction."""
    name = "v-token-bench-:a:b-1763800000"
    until = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(time.time() + 3600))
    marker = f"mssm2:{'0' * 36}:{'a' * 64}:{'b' * 64}"
    file = rig.folder / f"mint-{rounds}.sql"
    file.write_text(
        "\\set a random(1000000000, 9999999999)\n\\set b random(1000000000, 9999999999)\n"
        f"CREATE ROLE \"{name}\" WITH LOGIN PASSWORD '{verifier(rounds)}' VALID UNTIL '{until}' "
        f"CONNECTION LIMIT 100 \\; GRANT bench_reader TO \"{name}\" \\; "
        f"COMMENT ON ROLE \"{name}\" IS '{marker}';\n"
    )
    return file


def pgbench(rig, script, seconds, clients):
    """PostgreSQL's own rate with the same statements on as many connections."""
    settings = "-c synchronous_commit=on -c lock_timeout=5s -c statement_timeout=9s"
    command = [machine.pgbench(), "-n", "-f", str(script), "-c", str(clients), "-j", "1",
               "-T", str(seconds)]
    environment = {**rig.postgres().environment, "PGOPTIONS": settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or rate is None or (failed and int(failed.group(1))):
        raise Failure(f"pgbench: {done.stdout}{done.stderr}")
    return float(rate.group(1))


def mint(rig, out):
    """As many connections to PostgreSQL as clients; verifiers of 4,096 rounds, and of one."""
    connect(rig)
    for clients in MINTING:
        measure_minting(rig, out, clients, 4096, report.at_least_times(0.9))
    measure_minting(rig, out, max(MINTING), 1, report.at_least(2000))
    if len(machine.CORES) > 1:
        for clients in MINTING[1:]:
            measure_apart(rig, out, clients)


def measure_apart(rig, out, clients):
    """The same where PostgreSQL has a core of its own and all else the others, as if it were another machine."""
    mssm, _ = rig.pair()
    role = f"apart-{clients}"
    define(mssm, role, "1h", clients)
    script = pgbench_script(rig, 4096)
    seconds, count = (2, 1) if rig.quick else (6, 3)
    samples = {"MSSM": [], "PostgreSQL": []}
    own, others = {max(machine.CORES)}, machine.CORES - {max(machine.CORES)}
    with machine.bound(rig.postgres().pids(), own), machine.bound([mssm.process.pid, os.getpid()], others):
        load.run(mssm, "mint", 1, clients, role)
        for _ in range(count):
            samples["PostgreSQL"].append(pgbench(rig, script, seconds, clients))
            samples["MSSM"].append(load.run(mssm, "mint", seconds, clients, role)["rate"])
    out.figure(f"  PostgreSQL on a core of its own, {clients} clients, 1/s", samples, report.at_least_times(0.9), "PostgreSQL")


def measure_minting(rig, out, clients, rounds, goal):
    mssm, openbao = rig.pair()
    role = f"minted-{clients}-{rounds}"
    define(mssm, role, "1h", clients, scram_iterations=rounds)
    define(openbao, role, "1h", clients)
    script = pgbench_script(rig, rounds)
    seconds, count = (2, 1) if rig.quick else (6, 3)
    samples = {"MSSM": [], "PostgreSQL": [], "OpenBao": []}
    details = {"MSSM": [], "OpenBao": []}
    for server in (mssm, openbao):
        load.run(server, "mint", 1, clients, role)
    for _ in range(count):
        samples["PostgreSQL"].append(pgbench(rig, script, seconds, clients))
        for server in (mssm, openbao):
            found = load.run(server, "mint", seconds, clients, role)
            details[server.name].append(found)
            samples[server.name].append(found["rate"])
    noun = "client" if clients == 1 else "clients"
    name = f"logins minted, {clients} {noun}, {rounds:,} rounds, 1/s"
    out.figure(name, samples, goal, "PostgreSQL", details)
    out.figure("  the same beside OpenBao (4,096 rounds)", samples)


class Watch:
    """Asks pg_roles every 100 ms which of the logins still stand."""

    def __init__(self, postgres, ends):
        self.ends = ends
        self.closed, self.refused, self.gone = {}, {}, {}
        self.psql = subprocess.Popen(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"], env=postgres.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1,
        )

    def poll(self):
        """Notes the first time at which each login could not log in, and was no role any more."""
        self.psql.stdin.write(
            "SELECT rolname, rolcanlogin, coalesce(rolvaliduntil > clock_timestamp(), true)"
            " FROM pg_roles WHERE rolname LIKE 'v-%';\n\\echo end\n"
        )
        self.psql.stdin.flush()
        standing = {}
        while (line := self.psql.stdout.readline().rstrip("\n")) != "end":
            if line == "":
                raise Failure("psql ended while logins were watched")
            name, login, valid = line.rsplit("|", 2)
            standing[name] = (login == "t", valid == "t")
        # After the answer, so that a delay counts against the server.
        now = time.time()
        for name in self.ends:
            login, valid = standing.get(name, (False, False))
            if name not in standing:
                self.gone.setdefault(name, now)
            if not login:
                self.closed.setdefault(name, now)
            if not login or not valid:
                self.refused.setdefault(name, now)
        return len(self.gone) == len(self.ends)

    def close(self):
        self.psql.stdin.close()
        self.psql.wait(10)


def expiry(rig, out):
    """1,000 leases that end within two seconds, however fast they were made."""
    postgres = connect(rig)
    count = 100 if rig.quick else 1000
    lateness = {"first": {}, "last": {}, "refused": {}, "gone": {}}
    for server in rig.pair():
        # OpenBao makes about a hundred a second; the last must not expire while it still does.
        horizon = 12 if rig.quick or server.name == "MSSM" else 25
        more = {"scram_iterations": 1} if server.name == "MSSM" else {}
        for ttl in range(1, horizon + 1):
            define(server, f"ends-{ttl}", f"{ttl}s", **more)
        drop_old(postgres)
        ends = make_leases(server, count, horizon, spread=2)
        watch_end(postgres, server, ends, lateness)
    closed = {name: [value] for name, value in lateness["last"].items()}
    gone = {name: [value] for name, value in lateness["gone"].items()}
    out.figure(f"{count} leases end: all logins closed, s late", closed, report.at_most(2))
    out.figure("  all roles gone, s after the last expiry", gone, report.at_most(10))
    for name, seconds in lateness["refused"].items():
        out.note(f"{name}: with VALID UNTIL counted as well (PostgreSQL then refuses the password, but "
                 f"sessions go on), the last login was refused {seconds:.1f} s after its expiry.")


def drop_old(postgres):
    """What other figures left: only the logins of this one are to be seen."""
    postgres.run(
        # One transaction cannot hold the locks of all.
        "DO $$ DECLARE r text; n int := 0; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' "
        "LOOP EXECUTE format('DROP ROLE %I', r); n := n + 1; IF n % 1000 = 0 THEN COMMIT; END IF; "
        "END LOOP; END $$"
    )


def flood(rig, out):
    """20,000 leases that end within five seconds; 10,000 that end within one, beside what PostgreSQL itself drops."""
    postgres = connect(rig)
    mssm, _ = rig.pair()
    count, horizon = (500, 20) if rig.quick else (20_000, 90)
    for ttl in range(1, horizon + 6):
        # Not tried one by one: they are the same but for their time.
        define(mssm, f"ends-{ttl}", f"{ttl}s", scram_iterations=1, verify=False)
    drop_old(postgres)
    late = {"first": {}, "last": {}, "refused": {}, "gone": {}}
    watch_end(postgres, mssm, make_leases(mssm, count, horizon, spread=5), late)
    own = drop_rate(postgres, count // 2)
    ends = make_leases(mssm, count // 2, horizon // 2, spread=1)
    # From the first end on there is something to drop.
    rate = len(ends) / (all_gone(postgres) - min(ends.values()))
    out.figure(f"{count:,} leases end within 5 s: all logins refused, s late",
               {"MSSM": [late["refused"]["MSSM"]]}, report.at_most(2))
    out.figure("  all logins closed, s late", {"MSSM": [late["last"]["MSSM"]]})
    out.figure("  all roles gone, s after the last end", {"MSSM": [late["gone"]["MSSM"]]})
    out.figure(f"{count // 2:,} leases end within 1 s: roles gone, 1/s", {"MSSM": [rate], "PostgreSQL": [own]},
               report.at_least_times(0.8), "PostgreSQL")


def all_gone(postgres):
    """When the last login had gone; asks for their number alone, since to read all names takes time from both."""
    with subprocess.Popen(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"], env=postgres.environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1) as psql:
        deadline = time.time() + GONE_DEADLINE
        while time.time() < deadline:
            psql.stdin.write("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%';\n")
            if psql.stdout.readline() == "0\n":
                return time.time()
            time.sleep(POLL)
    raise Failure(f"there were roles still after {GONE_DEADLINE} s")


def drop_rate(postgres, count):
    """How many such roles PostgreSQL drops in a second, each by itself, on four connections."""
    names = [f"v-own-{number}" for number in range(count)]
    postgres.run(f"DO $$ BEGIN FOR i IN 0..{count - 1} LOOP EXECUTE format('CREATE ROLE %I LOGIN; "
                 "GRANT bench_reader TO %I', 'v-own-' || i, 'v-own-' || i); END LOOP; END $$")
    begun = time.monotonic()
    sessions = []
    for part in range(DROPPING):
        session = subprocess.Popen(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"], text=True,
                                   env=postgres.environment, stdin=subprocess.PIPE)
        sql = "".join(f'DROP ROLE "{name}";\n' for name in names[part::DROPPING])
        threading.Thread(target=session.communicate, args=(sql,)).start()
        sessions.append(session)
    if any(session.wait() for session in sessions):
        raise Failure("psql could not drop the roles that it had made")
    return count / (time.monotonic() - begun)


def make_leases(server, count, horizon, spread):
    """Mints over eight connections; the TTL shrinks as time passes, so that all end within `spread` seconds."""
    end, ends, errors = time.time() + horizon, {}, []
    numbers = iter(range(count))
    lock = threading.Lock()

    def work():
        client = server.client(server.token)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None or errors:
                return
            sent = time.time()
            # A TTL is whole seconds: each may miss by half of one.
            ttl = round(end + (spread - 1) * number / count - sent)
            if ttl < 2:
                errors.append(f"{server.name} was too slow to make {count} leases in {horizon} s")
                return
            try:
                answer = client.send("GET", f"db/creds/ends-{ttl}")
            except Exception as error:  # noqa: BLE001: every error ends the figure, in the caller
                errors.append(f"{server.name}: {error}")
                return
            # Counted from before the request: the lease can only have begun later.
            ends[answer["data"]["username"]] = sent + answer["lease_duration"]

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise Failure(errors[0])
    if max(ends.values()) - min(ends.values()) > spread:
        raise Failure(f"the leases do not end within {spread} s")
    return ends


def watch_end(postgres, server, ends, lateness):
    last = max(ends.values())
    report.say(f"{server.name}: {len(ends)} leases end in {min(ends.values()) - time.time():.1f} s, "
               f"all within {last - min(ends.values()):.2f} s")
    time.sleep(max(min(ends.values()) - time.time() - 1, 0))
    watch = Watch(postgres, ends)
    if watch.poll() or watch.gone:
        raise Failure(f"{server.name} ended logins before their time")
    begun = time.time()
    while not watch.poll():
        if time.time() - begun > GONE_DEADLINE:
            left = len(ends) - len(watch.gone)
            watch.close()
            raise Failure(f"{server.name}: {left} roles still there after {GONE_DEADLINE} s")
        time.sleep(POLL)
    watch.close()
    late = lambda seen: max(at - ends[name] for name, at in seen.items())
    early = min(at - ends[name] for name, at in watch.closed.items())
    lateness["first"][server.name] = early
    lateness["last"][server.name] = late(watch.closed)
    lateness["refused"][server.name] = late(watch.refused)
    lateness["gone"][server.name] = max(watch.gone.values()) - last
    report.say(f"{server.name}: first closed {early:.1f} s, median "
               f"{statistics.median(at - ends[name] for name, at in watch.closed.items()):.1f} s after expiry")
    return watch
