#!/usr/bin/env python3
"""The kill loop: processes are killed, stopped or leave at random moments; nothing is missing or twice.

    tests/kafka/kill_loop.py                                                      # short
    tests/kafka/kill_loop.py --rows 1000000 --devices 1000 --frame-rows 200 --kills 500 --stops 40 --leaves 40

A seeded input is written to a file: devices at sites, two boots each, frames with rows, and a schedule in
which some frames are sent again later, to another gateway, or because the reply was not waited for. It is
sent twice to fresh logs on the same Kafka: once undisturbed, and once while gateways, profile, detect,
archive and alerting processes are killed with SIGKILL and started again, stages are stopped with SIGSTOP
until others have taken their partitions over and are then woken up, and processes leave and join again.
What must have come to the lake and into the profiles is computed from the file here, with nothing of
Driftline's; both runs must equal it, and their final measures must equal each other, bit for bit. Prints
one JSON document; exit code 1 when anything differs.
"""
import argparse
import collections
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python"))
import driftline_frame as wire  # noqa: E402

SITES = 8
SECOND = 1_000_000
HOUR = 3600 * SECOND
PANE = 15 * 60 * SECOND
SIGNALS = ["temperature", "vibration", "pressure", "current"]
CENTRES = [(6181, 400), (2787, 330), (5501, 240), (8061, 900)]
ROLES = [("ingest", 2), ("profile", 2), ("detect", 2), ("archive", 2), ("alerting", 1)]
SENDERS = 8
# What metrics tell of faults, summed over all processes that run at the end.
TOLD = ["driftline_stage_failures_total", "driftline_stage_rebalances_total", "driftline_gateway_append_failures_total"]


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def pid_of(address):
    """The process of a broker that tests/kafka/start started."""
    cache = os.environ.get("DRIFTLINE_CACHE") or os.path.expanduser("~/.cache/driftline")
    return int(pathlib.Path(cache, "kafka-run", address, "pid").read_text())


def tool(name, *arguments):
    return subprocess.run([ROOT / "tests" / "kafka" / name, *arguments], check=True, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def surroundings(args, name, nodes=1):
    """A broker of its own where `args.kafka` names none, and a folder for logs and lakes, which is kept where
    `args.keep` names one; the rest goes in the end."""
    own = not args.kafka
    if own:
        args.kafka = tool("start", *(["--nodes", str(nodes)] if nodes > 1 else [])).stdout.strip()
    args.run = f"{name}.{os.getpid()}.{int(time.time())}"
    keep = getattr(args, "keep", None)
    work = pathlib.Path(keep or tempfile.mkdtemp(prefix=f"driftline-{name}-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    finally:
        if own:
            tool("stop", args.kafka)
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


# --- the input --------------------------------------------------------------------------------------


def make_input(path, args):
    """Frames in the order of their first sending, one JSON document a line."""
    rng = random.Random(args.seed)
    per_device = -(-args.rows // args.devices)
    begin = int(time.time()) // 3600 * HOUR - 7 * HOUR
    step = 5 * HOUR // per_device // 1000 * 1000
    boots = [[rng.getrandbits(63), rng.getrandbits(63)] for _ in range(args.devices)]
    devices = [[] for _ in range(args.devices)]
    for device in range(args.devices):
        rows, sequence, boot = 0, 0, 0
        while rows < per_device:
            if boot == 0 and rows >= per_device // 2:
                boot, sequence = 1, 0
            count = min(rng.randint(args.frame_rows // 2, args.frame_rows), per_device - rows)
            times = [begin + (rows + at) * step + device * 1000 for at in range(count)]
            columns = []
            for signal_at, (mean, deviation) in enumerate(CENTRES):
                # One site drifts in the second half, so that there is something to find.
                shift = 3 * deviation if signal_at == 1 and device % SITES == 3 and boot == 1 else 0
                columns.append([round(rng.gauss(mean + shift, deviation)) for _ in range(count)])
            # Some values are missing.
            columns[3] = [None if rng.random() < 0.01 else value for value in columns[3]]
            columns.append([int(rng.random() < 0.1) for _ in range(count)])
            devices[device].append([device, boots[device][boot], sequence, times, columns])
            rows, sequence = rows + count, sequence + 1
    with open(path, "w") as out:
        for turn in range(max(map(len, devices))):
            for frames in devices:
                if turn < len(frames):
                    out.write(json.dumps(frames[turn], separators=(",", ":")) + "\n")


def read_input(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def schedule(frames, args):
    """Indices of frames in the order of sending; some come again later, in either boot."""
    rng = random.Random(args.seed + 1)
    order = []
    later = collections.defaultdict(list)
    for at in range(len(frames)):
        order.append(at)
        if rng.random() < args.resends:
            later[at + rng.randint(1, 3 * args.devices)].append(at)
        order.extend(later.pop(at, []))
    for rest in later.values():
        order.extend(rest)
    return order


def expected(path):
    """Answers from the input alone: of the lake by device, of the profiles by pane, site and signal."""
    lake = collections.defaultdict(lambda: [0] * 9)
    profiles = collections.defaultdict(lambda: [0] * 4)
    for device, _boot, _sequence, times, columns in read_input(path):
        mine = lake[f"d{device:04}"]
        site = f"s{device % SITES}"
        for at, event_time in enumerate(times):
            values = [column[at] for column in columns]
            mine[0] += 1
            for signal_at in range(4):
                mine[1 + signal_at] += values[signal_at] or 0
            mine[5] += values[4]
            mine[6] += values[0] * values[1]
            mine[7] += values[3] is None
            mine[8] += event_time // 1000 % 1_000_003
            pane = event_time // PANE * PANE
            for name, value in zip(SIGNALS, values):
                profile = profiles[(pane, site, name)]
                profile[0] += 1
                profile[1] += value or 0
                profile[2] += (value or 0) ** 2
                profile[3] += value is None
    return dict(lake), dict(profiles)


# --- the pipeline -----------------------------------------------------------------------------------


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def resident(pid):
    """Resident memory of a process, MB."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0].split()[1]) // 1024 if found else 0


class Webhooks:
    """Takes webhooks; a message that comes again is counted once. Notes when each came, and with what."""

    def __init__(self):
        self.seen = collections.Counter()
        self.came = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.seen[self.headers["webhook-id"]] += 1
                outer.came.append((time.time(), json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Pipeline:
    # What its processes find in their environment besides.
    environment = {}

    def __init__(self, args, work, name):
        self.args, self.work, self.name = args, work / name, name
        self.work.mkdir()
        self.webhooks = Webhooks()
        self.config = self.work / "driftline.toml"
        self.lock = threading.Lock()
        self.kills = collections.Counter()
        self.stops = collections.Counter()
        self.leaves = collections.Counter()
        self.resident = collections.Counter()
        self.resident_before = {}
        self.moved = 0
        self.dozing = {}
        self.ended = []
        self.running = {}
        self.ports = {}
        for role, count in ROLES:
            for at in range(count):
                self.ports[(role, at)] = (free_port(), free_port())
        self.config.write_text(f"""
bundles = "{self.work}/bundles"
[log]
kafka = "{args.kafka}"
prefix = "{args.run}.{name}."
partitions = {args.partitions}
replication = {min(3, len(args.kafka.split(",")))}
session_timeout = "{args.session_timeout}"
group_protocol = "{args.group_protocol}"
[lake]
url = "{self.work}/lake"
[archive]
linger = "2s"
[[alerting.routes]]
name = "test"
url = "{self.webhooks.url}"
[telemetry]
log = "{args.log}"
""")

    def command(self, *arguments, **more):
        return subprocess.run(
            [self.args.binary, "--config", self.config, "--dir", self.work, *map(str, arguments)],
            capture_output=True, text=True, check=True, **more).stdout

    def register(self, devices, bundle):
        self.command("topics", "apply")
        self.command("model", "register", "--tenant", "t", bundle)
        lines = [json.dumps({"tenant": "t", "device": f"d{at:04}", "model": "boiler", "version": "1.0.0",
                             "site": f"s{at % SITES}", "region": f"r{at % SITES // 2}", "cadence_s": 600})
                 for at in range(devices)]
        file = self.work / "devices.jsonl"
        file.write_text("\n".join(lines))
        answers = json.loads(self.command("--format", "json", "device", "import", file))
        return {answer["device"]: answer["token"] for answer in answers}

    def start(self, role, at):
        gateway, metrics = self.ports[(role, at)]
        environment = dict(os.environ, **self.environment, DRIFTLINE_GATEWAY__LISTEN=f"127.0.0.1:{gateway}",
                           DRIFTLINE_TELEMETRY__LISTEN=f"127.0.0.1:{metrics}")
        log = open(self.work / f"{role}-{at}.log", "a")
        self.running[(role, at)] = subprocess.Popen(
            [self.args.binary, "--config", self.config, "--dir", self.work, "serve", "--role", role,
             "--instance", f"{role}{at}"], stdout=log, stderr=log, env=environment)

    def start_all(self):
        for key in self.ports:
            self.start(*key)

    def look_after(self):
        """Starts again what ended by itself, which a supervisor would, and remembers it."""
        with self.lock:
            for key, process in list(self.running.items()):
                if key not in self.dozing and process.poll() is not None:
                    self.ended.append(f"{key[0]}{key[1]}: exit code {process.returncode}")
                    self.start(*key)

    def kill(self, key):
        with self.lock:
            process = self.running[key]
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills[key[0]] += 1
            self.start(*key)

    def doze(self, key, seconds):
        """Stops a process and wakes it up when its partitions are others'."""
        with self.lock:
            process = self.running[key]
            self.dozing[key] = process
            self.stops[key[0]] += 1
            process.send_signal(signal.SIGSTOP)

        def wake():
            time.sleep(seconds)
            with self.lock:
                process.send_signal(signal.SIGCONT)
                del self.dozing[key]

        threading.Thread(target=wake, daemon=True).start()

    def leave(self, key):
        """Asks a process to end, which gives its partitions to others, and has it join again."""
        with self.lock:
            process = self.running[key]
            self.dozing[key] = process
            self.leaves[key[0]] += 1
            process.terminate()

        def join():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                self.ended.append(f"{key[0]}{key[1]} did not end when asked")
                process.kill()
            # One that was asked while it started had nothing to give back.
            if process.returncode not in (0, -signal.SIGTERM):
                self.ended.append(f"{key[0]}{key[1]}: exit code {process.returncode} when asked to end")
            with self.lock:
                self.start(*key)
                del self.dozing[key]

        threading.Thread(target=join, daemon=True).start()

    def stall(self, seconds, press):
        """A broker stands still; `press` loads the gateways. Most memory that each role takes meanwhile."""
        address = self.args.kafka.split(",")[0]
        broker = pid_of(address)
        before = collections.Counter()
        self.measure_memory(before)
        say(f"{self.name}: broker {address} stands still for {seconds:.0f} s; memory before: {dict(before)} MB")
        os.kill(broker, signal.SIGSTOP)
        pressing = threading.Event()
        pressers = [threading.Thread(target=press, args=(at, pressing)) for at in range(self.args.stall_senders)]
        for thread in pressers:
            thread.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.measure_memory(self.resident)
                time.sleep(1)
                self.look_after()
        finally:
            os.kill(broker, signal.SIGCONT)
            pressing.set()
        for thread in pressers:
            thread.join()
        self.resident_before = before
        say(f"{self.name}: it goes on; most memory: {dict(self.resident)} MB")

    def measure_memory(self, most):
        for (role, _), process in list(self.running.items()):
            most[role] = max(most[role], resident(process.pid))

    def told(self, names):
        """Sums of counters over all processes that answer, since each began."""
        sums = collections.Counter()
        for _, port in self.ports.values():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/metrics")
                lines = connection.getresponse().read().decode().splitlines()
            except (OSError, http.client.HTTPException):
                continue
            for line in lines:
                name = line.split("{")[0].split(" ")[0]
                if name in names:
                    sums[name] += int(float(line.split()[-1]))
        return dict(sums)

    def logged(self, text):
        """How many lines of all logs say so."""
        return sum(log.read_text(errors="replace").count(text) for log in self.work.glob("*.log"))

    def stop(self):
        with self.lock:
            for process in self.running.values():
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in self.running.values():
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    self.ended.append("a process did not end when asked")
            self.running.clear()

    def gateways(self):
        return [self.ports[key][0] for key in self.ports if key[0] == "ingest"]

    def sql(self, query):
        return json.loads(self.command("--format", "json", "sql", "-c", query))

    def lag(self):
        total = 0
        for key, (_, port) in self.ports.items():
            # Archive always has a few of the watermarks that come by the clock before it.
            if key[0] in ("ingest", "archive"):
                continue
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/metrics")
                lines = connection.getresponse().read().decode().splitlines()
            except OSError:
                return None
            found = [line for line in lines if line.startswith("driftline_stage_lag{")]
            if not found:
                return None
            total += sum(int(line.split()[-1]) for line in found)
        return total


# --- sending ----------------------------------------------------------------------------------------


class Sender:
    def __init__(self, pipeline, frames, order, tokens, schema, seconds, args):
        self.pipeline, self.tokens = pipeline, tokens
        self.schema, self.frames = schema, frames
        self.counts = collections.Counter()
        self.lock = threading.Lock()
        self.problems = []
        self.begin = time.monotonic()
        self.order = order
        self.pause = seconds / len(order)
        self.done = 0
        self.threads = [threading.Thread(target=self.work, args=(at, args)) for at in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def work(self, me, args):
        rng = random.Random(args.seed + 100 + me)
        gateways = self.pipeline.gateways()
        open_connections = {}
        count = collections.Counter()
        for at, index in enumerate(self.order):
            device = self.frames[index][0]
            if device % SENDERS != me:
                continue
            time.sleep(max(0, self.begin + at * self.pause - time.monotonic()))
            body = self.body(index)
            sent = 0
            while True:
                port = rng.choice(gateways)
                sent += 1
                status = self.post(open_connections, port, device, body, rng.random() < args.lost_replies)
                count["requests"] += 1
                if status == 200:
                    break
                if status == "lost":
                    count["replies_not_waited_for"] += 1
                elif status in (None, 503, 429, 408):
                    count["refused_or_unreachable"] += 1
                    time.sleep(0.05 + rng.random() * 0.2)
                else:
                    self.problems.append(f"status {status}")
                    return
            count["sent_again"] += sent - 1
        with self.lock:
            self.counts.update(count)

    def press(self, me, enough):
        """Sends what was sent before again and again, which counts for nothing, until it is enough."""
        rng = random.Random(me)
        gateways = self.pipeline.gateways()
        connections = {}
        while not enough.is_set():
            index = rng.choice(self.order)
            status = self.post(connections, rng.choice(gateways), self.frames[index][0], self.body(index), False)
            with self.lock:
                self.counts["pressed"] += 1
                self.counts["pressed_refused"] += status != 200
            if status != 200:
                enough.wait(0.05)

    def body(self, index):
        device, boot, sequence, times, columns = self.frames[index]
        nothing = [None] * len(times)
        full = [times, *columns, nothing, nothing, nothing, nothing]
        return wire.join([wire.encode(self.schema, full, boot, sequence)])

    def post(self, connections, port, device, body, lose):
        try:
            connection = connections.get(port)
            if connection is None:
                connection = connections[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/v1/frames", body, {
                "Content-Type": "application/vnd.driftline.frames",
                "Authorization": f"Bearer {self.tokens[f'd{device:04}']}"})
            if lose:
                connections.pop(port).close()
                return "lost"
            response = connection.getresponse()
            text = response.read()
            if response.status not in (200, 503, 429, 408):
                self.problems.append(text.decode(errors="replace")[:300])
            return response.status
        except (OSError, http.client.HTTPException):
            connection = connections.pop(port, None)
            if connection:
                connection.close()
            return None

    def is_done(self):
        return not any(thread.is_alive() for thread in self.threads)


# --- answers ----------------------------------------------------------------------------------------


def micros(text):
    whole, _, rest = text.rstrip("Z").partition(".")
    seconds = int(__import__("calendar").timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")))
    return seconds * SECOND + int((rest + "000000")[:6] or 0)


def found(pipeline):
    resolutions = [0.01, 0.001, 0.001, 0.001]
    columns = [f"CAST(round(CAST(features[{at}] AS DOUBLE) / {resolution}) AS BIGINT)"
               for at, resolution in enumerate(resolutions, 1)]
    rows = pipeline.sql(
        "SELECT device, count(*) AS n, count(DISTINCT inference_id) AS ids, "
        + ", ".join(f"sum({column}) AS s{at}" for at, column in enumerate(columns))
        + f", sum(CAST(predicted_code AS BIGINT)) AS s4, sum({columns[0]} * {columns[1]}) AS s5, "
        "count(*) - count(features[4]) AS s6, "
        "sum(CAST(event_time AS BIGINT) / 1000 % 1000003) AS s7 FROM inferences GROUP BY device")
    lake = {row["device"]: [row["n"], *(row[f"s{at}"] for at in range(8))] for row in rows}
    twice = sum(row["n"] - row["ids"] for row in rows)
    rows = pipeline.sql(
        "SELECT pane_start, site, signal, sum(rows) AS n, CAST(sum(sum) AS VARCHAR) AS s, "
        "CAST(sum(sum_squares) AS VARCHAR) AS q, sum(nulls) AS z FROM profiles "
        f"WHERE signal IN ({', '.join(repr(name) for name in SIGNALS)}) GROUP BY 1, 2, 3")
    profiles = {(micros(row["pane_start"]), row["site"], row["signal"]):
                [row["n"], int(row["s"]), int(row["q"]), row["z"]] for row in rows}
    return lake, profiles, twice


def measures(pipeline):
    """The measures that hold: of each window, cohort, signal and method the highest revision."""
    rows = pipeline.sql(
        "SELECT model, version, cohort, signal, window_start, window_end, method, method_version, value, "
        "p_value, threshold, crossed, rows, devices, reference_rows, reference, config FROM ("
        "SELECT *, row_number() OVER (PARTITION BY model, version, cohort, signal, window_start, method "
        "ORDER BY revision DESC) AS place FROM measures) WHERE place = 1")
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def differences(name, wanted, got, limit=5):
    told = []
    for key in sorted(set(wanted) | set(got), key=str):
        if wanted.get(key) != got.get(key):
            told.append(f"{name} {key}: expected {wanted.get(key)}, found {got.get(key)}")
    more = [f"{name}: {len(told)} differ"] if len(told) > limit else []
    return told[:limit] + more


# --- one run ----------------------------------------------------------------------------------------


def run(args, work, name, kills, frames, order, bundle, schema, answers):
    pipeline = Pipeline(args, work, name)
    say(f"{name}: registering {args.devices} devices")
    tokens = pipeline.register(args.devices, bundle)
    pipeline.start_all()
    began = time.monotonic()
    try:
        seconds = args.seconds
        if name == "killed":
            count = kills + args.stops + args.leaves + args.broker_kills + args.leader_moves
            brokers = (args.broker_kills + args.leader_moves) * 8 + args.broker_stall
            seconds = max(seconds, count * args.kill_every * 1.05 + brokers)
        sender = Sender(pipeline, frames, order, tokens, schema, seconds, args)
        rng = random.Random(args.seed + 2)
        deeds = ["kill"] * kills + ["doze"] * args.stops + ["leave"] * args.leaves
        deeds = deeds + ["broker"] * args.broker_kills if name == "killed" else []
        rng.shuffle(deeds)
        # Leaders go back to where they were meant to be, which moves those that a kill has moved away.
        last = len(deeds) - 1 - deeds[::-1].index("broker") if "broker" in deeds else -1
        for _ in range(args.leader_moves if name == "killed" else 0):
            deeds.insert(rng.randint(last + 1, len(deeds)), "lead")
        for at, deed in enumerate(deeds):
            time.sleep(rng.expovariate(1 / args.kill_every))
            awake = [key for key in pipeline.ports if key not in pipeline.dozing]
            if deed == "kill":
                pipeline.kill(rng.choice(awake))
            elif deed == "doze":
                stages = [key for key in awake if key[0] != "ingest"]
                pipeline.doze(rng.choice(stages), args.stop_for)
            elif deed == "leave":
                pipeline.leave(rng.choice(awake))
            elif deed == "lead":
                pipeline.moved += int(tool("lead", args.kafka).stdout or 0)
            else:
                tool("restart", rng.choice(args.kafka.split(",")))
            pipeline.look_after()
            if (at + 1) % 25 == 0:
                say(f"{name}: {at + 1} of {len(deeds)} deeds")
        while pipeline.dozing:
            time.sleep(0.2)
        if name == "killed" and args.broker_stall:
            # A process that starts now would only end again: load is what is asked for.
            until_archived(pipeline, args)
            pipeline.stall(args.broker_stall, sender.press)
        while not sender.is_done():
            time.sleep(0.5)
            pipeline.look_after()
        if sender.problems:
            raise SystemExit(f"{name}: the gateway refused: {sender.problems[0]}")
        sent = time.monotonic() - began
        say(f"{name}: all {len(frames)} frames are acknowledged after {sent:.0f} s, {dict(sender.counts)}")
        drain(pipeline, args, sum(mine[0] for mine in answers[0].values()))
        drained = time.monotonic() - began
        lake, profiles, twice = found(pipeline)
        told = pipeline.sql("SELECT (SELECT count(*) FROM deadletters) AS letters")[0]["letters"]
        # Rows are hours old, so windows are judged while they come: what was told of a part and refuted by the rest
        # depends on what came when, and is superseded. What holds at the end does not.
        alerts = pipeline.sql("SELECT alert_id, kind, scope, max(CAST(change = 'superseded' AS INT)) AS superseded "
                              "FROM alerts GROUP BY alert_id, kind, scope")
        result = {
            "rows": sum(mine[0] for mine in lake.values()), "twice": twice, "dead_letters": told,
            "kills": dict(pipeline.kills), "stops": dict(pipeline.stops),
            "leaves": dict(pipeline.leaves), "broker_kills": deeds.count("broker"),
            "leader_moves": deeds.count("lead"),
            "partitions_moved": pipeline.moved, "metrics": pipeline.told(TOLD),
            "tried_again": pipeline.logged("step failed and is tried again"),
            "resident_mb_before_stall": dict(pipeline.resident_before),
            "resident_mb_while_stalled": dict(pipeline.resident), "ended_by_themselves": pipeline.ended,
            "seconds_sending": round(sent, 1), "seconds_until_drained": round(drained, 1),
            "webhooks": len(pipeline.webhooks.seen), "webhooks_twice": sum(
                count - 1 for count in pipeline.webhooks.seen.values()),
            "alerts": names(alerts, 0), "superseded": names(alerts, 1), **sender.counts}
        problems = differences("lake of device", answers[0], lake)
        problems += differences("profile", answers[1], profiles)
        if twice:
            problems.append(f"{twice} rows are in the lake twice")
        if told:
            problems.append(f"{told} dead letters")
        missing = [row["alert_id"] for row in alerts
                   if not any(row["alert_id"] in seen for seen in pipeline.webhooks.seen)]
        if missing:
            problems.append(f"no webhook of {len(missing)} of {len(alerts)} alerts")
        return result, [f"{name}: {problem}" for problem in problems], measures(pipeline)
    finally:
        pipeline.stop()


def names(alerts, superseded):
    return sorted({f"{row['kind']} {row['scope']}" for row in alerts if row["superseded"] == superseded})


def until_archived(pipeline, args):
    """Waits until every role works: the first rows are in the lake and measured."""
    deadline = time.monotonic() + args.patience
    while time.monotonic() < deadline:
        pipeline.look_after()
        try:
            if pipeline.sql("SELECT (SELECT count(*) FROM inferences) * (SELECT count(*) FROM measures) AS n")[0]["n"]:
                return
        except subprocess.CalledProcessError:
            # A table is made when its first rows come.
            pass
        time.sleep(0.5)
    raise SystemExit(f"{pipeline.name}: nothing was measured within {args.patience} s")


def drain(pipeline, args, rows):
    deadline = time.monotonic() + args.patience
    before, calm = None, 0
    while time.monotonic() < deadline:
        time.sleep(3)
        pipeline.look_after()
        try:
            now = pipeline.sql("SELECT (SELECT count(*) FROM inferences) AS lake, "
                               "(SELECT coalesce(sum(rows), 0) FROM profiles WHERE signal = 'temperature') AS profiles, "
                               "(SELECT count(*) FROM measures) AS measures, (SELECT count(*) FROM alerts) AS alerts")[0]
        except subprocess.CalledProcessError:
            # A table is made when its first rows come.
            continue
        calm = calm + 1 if now == before and pipeline.lag() == 0 else 0
        before = now
        # Longer than the archive gathers, and than the stages take to look how far they are behind. Where they
        # cannot look, on a broker that does not answer, the lag stays what it was.
        if calm >= 4 and now["lake"] >= rows and now["profiles"] >= rows:
            return
        if now["lake"] > rows or now["profiles"] > rows:
            say(f"{pipeline.name}: too many: {now}, {rows} are right")
            return
    say(f"{pipeline.name}: not at rest after {args.patience} s: {before}, lag {pipeline.lag()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", help="host:port; without it a broker of its own, see tests/kafka/start")
    parser.add_argument("--broker-kills", type=int, default=0, help="of a broker of its own")
    parser.add_argument("--broker-stall", type=float, default=0, help="seconds that a broker of its own stands still")
    parser.add_argument("--stall-senders", type=int, default=0, help="senders that press the gateways meanwhile")
    parser.add_argument("--leader-moves", type=int, default=0, help="times that leaders go back to preferred nodes")
    parser.add_argument("--nodes", type=int, help="brokers of its own; 3 where brokers are killed, else 1")
    parser.add_argument("--only-disturbed", action="store_true", help="no undisturbed run to hold measures against")
    parser.add_argument("--binary", default=str(ROOT / "target" / "debug" / "driftline"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--devices", type=int, default=120)
    parser.add_argument("--frame-rows", type=int, default=60)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kill-every", type=float, default=1.5, help="seconds between kills, on average")
    parser.add_argument("--stops", type=int, default=8)
    parser.add_argument("--leaves", type=int, default=10, help="processes asked to end, which then join again")
    parser.add_argument("--stop-for", type=float, default=7, help="seconds, longer than the session timeout")
    parser.add_argument("--seconds", type=float, default=20, help="least time that sending takes")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--resends", type=float, default=0.08)
    parser.add_argument("--lost-replies", type=float, default=0.03)
    parser.add_argument("--session-timeout", default="3s")
    parser.add_argument("--group-protocol", default="classic", choices=["classic", "consumer"])
    parser.add_argument("--patience", type=float, default=600, help="seconds until a run must be at rest")
    parser.add_argument("--log", default="info,datafusion=warn,delta_kernel=off,buoyant_kernel=off,deltalake=warn")
    parser.add_argument("--keep", help="folder for input, logs and lakes; without it they are removed")
    args = parser.parse_args()
    # A broker alone must not be killed: Kafka 4.3.0 was seen to forget marks of transactions while
    # it starts, when no other node leads the partitions.
    nodes = args.nodes or (3 if args.broker_kills or args.leader_moves else 1)
    if args.kafka and (args.broker_kills or args.broker_stall or args.leader_moves or args.nodes):
        parser.error("--broker-kills, --broker-stall, --leader-moves and --nodes take brokers of its own: leave --kafka out")
    with surroundings(args, f"kill{args.seed}", nodes) as work:
        return loop(args, work)


def prepare(args, work):
    """Frames, the order of sending, a bundle, the frames' schema, and the right answers."""
    make_input(work / "input.jsonl", args)
    subprocess.run([args.binary, "simulate", "--prepare", work / "estate", "--tenant", "t"], check=True,
                   capture_output=True)
    bundle = work / "estate" / "bundle"
    shown = subprocess.run([args.binary, "--format", "json", "model", "show", bundle], check=True,
                           capture_output=True, text=True).stdout
    schema = json.loads(shown)["frames"]["inferences"]
    frames = read_input(work / "input.jsonl")
    return frames, schedule(frames, args), bundle, schema, expected(work / "input.jsonl")


def loop(args, work):
    say(f"seed {args.seed}: making {args.rows} rows of {args.devices} devices")
    common = prepare(args, work)
    frames, order = common[:2]
    quiet, problems, wanted = {}, [], None
    if not args.only_disturbed:
        quiet, problems, wanted = run(args, work, "undisturbed", 0, *common)
    killed, more, got = run(args, work, "killed", args.kills, *common)
    problems += more
    if wanted is None:
        quiet, wanted = {"alerts": killed["alerts"]}, got
    if wanted != got:
        only = [sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))]
        problems.append(f"final measures differ: {len(only[0])} and {len(only[1])} of {len(wanted)}; "
                        f"{only[0][:1]} against {only[1][:1]}")
    if quiet["alerts"] != killed["alerts"]:
        problems.append(f"alerts differ: {quiet['alerts']} against {killed['alerts']}")
    print(json.dumps({"seed": args.seed, "rows": args.rows, "devices": args.devices, "frames": len(frames),
                      "planned_resends": len(order) - len(frames), "kills": sum(killed["kills"].values()),
                      "stops": sum(killed["stops"].values()), "leaves": sum(killed["leaves"].values()),
                      "measures": len(wanted), "undisturbed": quiet, "killed": killed,
                      "problems": problems}, indent=2))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
