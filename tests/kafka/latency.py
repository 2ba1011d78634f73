#!/usr/bin/env python3
"""How long from a device's send to the acknowledgement, to the row in SQL, to the finding and to the webhook.

    tests/kafka/latency.py                     # a broker of its own; takes ten minutes
    tests/kafka/latency.py --kafka HOST:PORT --binary target/release/driftline

Every role runs in a process of its own. First devices send as fast as they are answered, which gives what the
pipeline keeps up with here: rows over the time until all are in the lake. Then fresh roles get half of that,
steadily, while

- a probe sends a row four times a second, and a prompt of `driftline sql` is asked over and over for the latest;
- the devices of many tenants report every five seconds, and at one tenant after the other a sensor gives no values
  from a window's beginning on. A consumer of committed records sees the findings, an HTTP server the webhooks.

The settings that decide how long a finding takes are printed with it. Prints one JSON document.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import threading
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kill_loop as loop  # noqa: E402
from kill_loop import SECOND, wire  # noqa: E402

ROOT = loop.ROOT
loop.ROLES = [("ingest", 1), ("profile", 1), ("detect", 1), ("archive", 1), ("alerting", 1)]
MINUTE = 60 * SECOND
# Rows of a frame of the load, and of one of a tenant whose sensors fail.
LOAD_ROWS, TENANT_ROWS = 250, 20
# A tenant's devices, and how often each reports, seconds.
TENANT_DEVICES, CADENCE = 6, 5
LOAD_DEVICES, LOAD_SENDERS = 64, 8
PROBE_EVERY = 0.25
# Distinct frames of one kind that are sent in turn.
TEMPLATES = 8


def settings(args):
    """What decides how long things take, beside the machine."""
    return {"window": "1m", "pane": "1m", "cadence": f"{CADENCE}s", "grace": args.grace, "watermark_step": "1s",
            "archive_linger": args.linger}


class Pipeline(loop.Pipeline):
    def __init__(self, args, work, name):
        super().__init__(args, work, name)
        self.config.write_text(f"""
bundles = "{self.work}/bundles"
[log]
kafka = "{args.kafka}"
prefix = "{args.run}.{name}."
partitions = {args.partitions}
[lake]
url = "{self.work}/lake"
[gateway.rate]
rows_per_second = 1e9
rows_burst = 1e9
requests_per_second = 1e6
requests_burst = 1e6
[profile]
pane = "1m"
watermark_step = "1s"
idle_slack = "2s"
[detect]
window = "1m"
grace = "{args.grace}"
[archive]
linger = "{args.linger}"
[[alerting.routes]]
name = "test"
url = "{self.webhooks.url}"
[telemetry]
log = "{args.log}"
""")

    def register(self, tenants, bundle):
        """Tokens by tenant and device; `tenants` says how many devices each has."""
        self.command("topics", "apply")
        lines = []
        for tenant, devices in tenants.items():
            self.command("model", "register", "--tenant", tenant, bundle)
            lines += [{"tenant": tenant, "device": f"d{at:04}", "model": "boiler", "version": "1.0.0",
                       "site": f"s{at % 2}", "region": "r", "cadence_s": CADENCE} for at in range(devices)]
        file = self.work / "devices.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        answers = json.loads(self.command("--format", "json", "device", "import", file))
        return {(line["tenant"], answer["device"]): answer["token"] for line, answer in zip(lines, answers)}


class Findings:
    """The findings topic as a reader of committed records sees it, with the time that each came."""

    def __init__(self, pipeline, args):
        cache = os.environ.get("DRIFTLINE_CACHE") or os.path.expanduser("~/.cache/driftline")
        jars = next(pathlib.Path(cache).glob("kafka-4.*"))
        self.came = []
        config = pipeline.work / "consumer.properties"
        config.write_text("isolation.level=read_committed\nfetch.max.wait.ms=50\n")
        self.process = subprocess.Popen(
            ["java", "-Xmx128m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", "org.apache.kafka.tools.consumer.ConsoleConsumer",
             "--bootstrap-server", args.kafka, "--topic", f"{args.run}.{pipeline.name}.findings", "--from-beginning",
             "--command-config", config],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.came.append((time.time(), json.loads(line)))


class Prompt:
    """A prompt of `driftline sql`, asked again and again."""

    def __init__(self, pipeline):
        self.process = subprocess.Popen(
            [pipeline.args.binary, "--config", pipeline.config, "--dir", pipeline.work, "--format", "json", "sql"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def ask(self, query):
        """The first row of the answer; `None` while the table is not there."""
        # The second statement ends the answer also where the first has failed.
        self.process.stdin.write(f"{query}; SELECT 'over' AS over;\n")
        self.process.stdin.flush()
        row = None
        for line in self.process.stdout:
            if '"over"' in line:
                return row
            if "{" in line:
                row = json.loads(line[line.index("{"):line.rindex("}") + 1])
        raise SystemExit("the prompt of driftline sql has ended")

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Frames:
    """Frames whose columns were coded before; only time and sequence are put in."""

    def __init__(self, schema, rows, step_us, broken=False, seed=1):
        rng = random.Random(seed)
        types = [field["ty"] for field in schema["fields"]]
        self.head = b"DL\x01" + bytes([schema["kind"]]) + struct.pack("<IB", schema["fingerprint"], 0)
        self.rows, self.coded = rows, []
        for _ in range(TEMPLATES):
            columns = [[-(rows - 1 - at) * step_us // 1000 * 1000 for at in range(rows)]]
            for signal, (mean, deviation) in enumerate(loop.CENTRES):
                gone = broken and signal == 1
                columns.append([None if gone else round(rng.gauss(mean, deviation)) for _ in range(rows)])
            columns.append([int(rng.random() < 0.1) for _ in range(rows)])
            # Confidence, in ten thousandths.
            columns.append([rng.randint(6_000, 9_999) for _ in range(rows)])
            columns += [[None] * rows] * (len(types) - len(columns))
            # Times are counted from when the frame was sent, in milliseconds.
            coded = [wire.encode_column(ty, column, 1, 0) for ty, column in zip(types, columns)]
            self.coded.append(bytes(coding for coding, _ in coded) + b"".join(data for _, data in coded))

    def frame(self, boot, sequence, sent_us):
        flags = wire.SENT.index("clock") | 1 << 2 | 1 << 4
        body = struct.pack("<Q", boot) + wire.varint(sequence) + wire.varint(flags)
        body += wire.signed(sent_us // 1000) + wire.varint(self.rows) + self.coded[sequence % TEMPLATES]
        tail = wire.varint(len(body)) + body
        return wire.join([self.head + struct.pack("<I", zlib.crc32(self.head + tail)) + tail])


class Device:
    """Sends over one connection of its thread."""

    def __init__(self, token):
        self.token, self.boot, self.sequence = token, random.getrandbits(63), 0

    def send(self, connection, frames):
        """When it was sent, and how long the answer took, seconds."""
        sent = time.time()
        body = frames.frame(self.boot, self.sequence, int(sent * SECOND))
        began = time.monotonic()
        connection.request("POST", "/v1/frames", body, {
            "Content-Type": "application/vnd.driftline.frames", "Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        answer = response.read()
        took = time.monotonic() - began
        if response.status != 200:
            raise SystemExit(f"the gateway answered {response.status}: {answer[:300]}")
        self.sequence += 1
        return sent, took


class Senders:
    """Threads that share devices; each calls `turn(connection, device, at)` at its times until the end."""

    def __init__(self, pipeline):
        self.pipeline, self.threads, self.failed = pipeline, [], []

    def start(self, work):
        def run():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.pipeline.gateways()[0], timeout=60)
                work(connection)
            except (SystemExit, OSError, http.client.HTTPException) as error:
                self.failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.failed:
            raise SystemExit(f"a sender failed: {self.failed[0]!r}")


def wait_ready(pipeline, patience=120):
    deadline = time.monotonic() + patience
    for _, port in pipeline.ports.values():
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                raise SystemExit("the roles are not ready")
            time.sleep(0.2)


def quantiles(values):
    """Median and 99th percentile, seconds; the percentile of few values is their greatest."""
    values = sorted(values)
    if not values:
        return {"count": 0}
    at = min(len(values) - 1, -(-99 * len(values) // 100) - 1)
    return {"count": len(values), "median_s": round(values[len(values) // 2], 3), "p99_s": round(values[at], 3)}


def saturate(args, work, bundle, schema):
    """Rows a second that the whole pipeline keeps up with, and that the gateway takes meanwhile."""
    pipeline = Pipeline(args, work, "full")
    tokens = pipeline.register({"load": LOAD_DEVICES}, bundle)
    pipeline.start_all()
    try:
        wait_ready(pipeline)
        frames = Frames(schema, LOAD_ROWS, 4_000)
        devices = [Device(token) for token in tokens.values()]
        senders, counts = Senders(pipeline), collections.Counter()
        began = time.monotonic()

        def work_off(me):
            def run(connection):
                turn = me
                while time.monotonic() - began < args.full_seconds:
                    devices[turn % LOAD_DEVICES].send(connection, frames)
                    counts[me] += LOAD_ROWS
                    turn += LOAD_SENDERS
            return run

        for me in range(LOAD_SENDERS):
            senders.start(work_off(me))
        senders.join()
        sent = time.monotonic() - began
        rows = sum(counts.values())
        prompt = Prompt(pipeline)
        while True:
            row = prompt.ask("SELECT count(*) AS n FROM inferences")
            if row and row["n"] >= rows:
                break
            if time.monotonic() - began > args.patience:
                raise SystemExit(f"only {row} of {rows} rows came to the lake")
            time.sleep(0.5)
        whole = time.monotonic() - began
        prompt.close()
        return {"rows": rows, "gateway_rows_per_s": round(rows / sent), "seconds_until_all_in_lake": round(whole, 1),
                "pipeline_rows_per_s": round(rows / whole)}
    finally:
        pipeline.stop()


def at_half_load(args, work, bundle, schema, rate):
    pipeline = Pipeline(args, work, "half")
    tenants = {f"t{at:03}": TENANT_DEVICES for at in range(args.tenants)}
    tokens = pipeline.register({"load": LOAD_DEVICES, "probe": 1, **tenants}, bundle)
    pipeline.start_all()
    findings = prompt = None
    try:
        wait_ready(pipeline)
        findings = Findings(pipeline, args)
        # The first windows are calm; then the sensors of a part of the tenants fail with each window that begins.
        begin = (int(time.time()) // 60 + 1) * 60
        breaking = {tenant: begin + 60 * (args.calm + at % args.turns) for at, tenant in enumerate(tenants)}
        end = begin + 60 * (args.calm + args.turns)
        acks, rows = [], collections.Counter()
        senders = Senders(pipeline)

        load_rows = max(LOAD_ROWS, rate - args.tenants * TENANT_DEVICES * TENANT_ROWS // CADENCE)
        pause = LOAD_ROWS / load_rows

        def load(me):
            frames = Frames(schema, LOAD_ROWS, 4_000)
            mine = [Device(tokens[("load", f"d{at:04}")]) for at in range(me, LOAD_DEVICES, LOAD_SENDERS)]

            def run(connection):
                turn, start = me, time.time()
                while (now := time.time()) < end:
                    time.sleep(max(0, start + turn * pause - now))
                    acks.append(mine[turn // LOAD_SENDERS % len(mine)].send(connection, frames)[1])
                    rows["load"] += LOAD_ROWS
                    turn += LOAD_SENDERS
            return run

        def reporters(some):
            calm = Frames(schema, TENANT_ROWS, CADENCE * SECOND // TENANT_ROWS)
            broken = Frames(schema, TENANT_ROWS, CADENCE * SECOND // TENANT_ROWS, broken=True, seed=2)
            devices = [(tenant, Device(tokens[(tenant, f"d{at:04}")])) for tenant in some for at in range(TENANT_DEVICES)]

            def run(connection):
                turn, start = 0, time.time()
                while time.time() < end:
                    at = start + turn * CADENCE / len(devices)
                    time.sleep(max(0, at - time.time()))
                    tenant, device = devices[turn % len(devices)]
                    # A frame reaches back over one cadence: the first that is broken lies wholly in the window.
                    breaks = time.time() - CADENCE >= breaking[tenant]
                    device.send(connection, broken if breaks else calm)
                    rows["tenants"] += TENANT_ROWS
                    turn += 1
            return run

        probed = []

        def probe(connection):
            frames = Frames(schema, 1, 1_000)
            device = Device(tokens[("probe", "d0000")])
            while time.time() < end:
                began = time.monotonic()
                sent, _ = device.send(connection, frames)
                probed.append(int(sent * SECOND) // 1000 * 1000)
                time.sleep(max(0, PROBE_EVERY - (time.monotonic() - began)))

        for me in range(LOAD_SENDERS):
            senders.start(load(me))
        started, names = time.time(), list(tenants)
        for me in range(4):
            senders.start(reporters(names[me::4]))
        senders.start(probe)

        prompt = Prompt(pipeline)
        in_sql, asked, shown = [], [], 0
        while time.time() < end:
            began = time.monotonic()
            row = prompt.ask("SELECT max(CAST(event_time AS BIGINT)) AS at FROM inferences WHERE tenant = 'probe' "
                             f"AND event_time > to_timestamp_micros({int((time.time() - 120) * SECOND)})")
            now = time.time()
            asked.append(time.monotonic() - began)
            while row and row["at"] and shown < len(probed) and probed[shown] <= row["at"]:
                in_sql.append(now - probed[shown] / SECOND)
                shown += 1
            time.sleep(max(0, args.ask_every - (time.monotonic() - began)))
        senders.join()
        # What the last windows have to tell still comes.
        time.sleep(CADENCE + 20)
        return told(pipeline, findings, breaking, {
            "rows_per_s": round((rows["load"] + rows["tenants"]) / (end - started)),
            "acknowledged": quantiles(acks), "in_sql": quantiles(in_sql), "sql_took": quantiles(asked)})
    finally:
        if findings:
            findings.process.terminate()
        if prompt:
            prompt.close()
        pipeline.stop()


def told(pipeline, findings, breaking, result):
    """Adds how long findings and webhooks took, counted from the end of the window that they are about."""
    first, messages = {}, {}
    for came, finding in findings.came:
        if finding["state"] == "drifted" and came > breaking.get(finding["tenant"], came):
            first.setdefault(finding["tenant"], (came, finding))
    for came, message in pipeline.webhooks.came:
        data = message["data"]["finding"]
        messages.setdefault((data["key"], data["window_end_us"]), came)
    to_finding, to_webhook, between, windows = [], [], [], collections.Counter()
    for tenant, (came, finding) in first.items():
        end = finding["window_end_us"] / SECOND
        windows[round((end - breaking[tenant]) / 60)] += 1
        to_finding.append(came - end)
        told_at = messages.get((finding["key"], finding["window_end_us"]))
        if told_at:
            to_webhook.append(told_at - end)
            between.append(told_at - came)
    result.update({
        "finding_after_window": quantiles(to_finding), "webhook_after_window": quantiles(to_webhook),
        "webhook_after_finding": quantiles(between), "tenants": len(breaking),
        "windows_until_found": dict(sorted(windows.items())), "ended_by_themselves": pipeline.ended,
        "tried_again": pipeline.logged("step failed and is tried again")})
    return result


def prepare(args, work):
    subprocess.run([args.binary, "simulate", "--prepare", work / "estate", "--tenant", "t"], check=True,
                   capture_output=True)
    bundle = work / "estate" / "bundle"
    shown = subprocess.run([args.binary, "--format", "json", "model", "show", bundle], check=True,
                           capture_output=True, text=True).stdout
    return bundle, json.loads(shown)["frames"]["inferences"]


def measure(args, work):
    bundle, schema = prepare(args, work)
    result = {"settings": settings(args)}
    rate = args.rate
    if not rate:
        loop.say(f"as fast as it goes for {args.full_seconds:.0f} s")
        result["full_load"] = saturate(args, work, bundle, schema)
        rate = result["full_load"]["pipeline_rows_per_s"] // 2
    loop.say(f"{rate} rows/s for {args.calm + args.turns} to {args.calm + args.turns + 1} minutes")
    result["half_load"] = at_half_load(args, work, bundle, schema, rate)
    return result


def add_arguments(parser):
    parser.add_argument("--rate", type=int, help="rows a second, in place of half of what the pipeline keeps up with")
    parser.add_argument("--full-seconds", type=float, default=20, help="how long devices send as fast as they can")
    parser.add_argument("--tenants", type=int, default=100, help="whose sensors fail, one finding each")
    parser.add_argument("--calm", type=int, default=2, help="windows before the first fails")
    parser.add_argument("--turns", type=int, default=5, help="windows over which they begin to fail")
    parser.add_argument("--grace", default="5s")
    parser.add_argument("--linger", default="5s", help="of the archive")
    parser.add_argument("--ask-every", type=float, default=0.5, help="seconds between two questions in SQL")
    parser.add_argument("--patience", type=float, default=300)
    parser.add_argument("--log", default="warn,datafusion=warn,delta_kernel=off,buoyant_kernel=off,deltalake=warn")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", help="host:port; without it a broker of its own")
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "driftline"))
    parser.add_argument("--keep", help="folder for logs and lakes; without it they are removed")
    add_arguments(parser)
    args = parser.parse_args()
    args.partitions, args.session_timeout, args.group_protocol = 2, "10s", "classic"
    with loop.surroundings(args, "latency") as work:
        print(json.dumps(measure(args, work), indent=2))


if __name__ == "__main__":
    sys.exit(main())
