#!/usr/bin/env python3
"""The same rows come to the same final measures, byte for byte, however they are sent and spread.

    tests/determinism.py                         # some cells, embedded log
    tests/determinism.py --kafka HOST:PORT       # two cells on Kafka besides
    tests/determinism.py --all                   # every cell: 1, 3, 12 partitions; batches of 1 and 10,000; arrivals

A seeded input of several devices over a day is sent to a fresh `driftline serve` per cell: with 1, 3 or 12
partitions; in frames of one row or of 10,000 rows; in order, shuffled, or with the whole day of one device
arriving when everything else has been judged. In every cell lake and profiles must equal what is computed
from the input here, and `final_measures` must be those of the first cell. Prints one JSON document; exit code
1 when anything differs.
"""
import argparse
import hashlib
import http.client
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "kafka"))
import kill_loop as loop  # noqa: E402

# The one whose day comes late has a full batch; the others make the cohorts.
ROWS = [10_000, 600, 600, 600, 600, 600]
DAY = 24 * loop.HOUR
# A device's frames may overtake each other within so many: fewer than the gateway remembers exactly.
SHUFFLED = 500
# Frames of one request: below the gateway's limit.
REQUEST_FRAMES = 500

SHORT = [("embedded", 1, 10_000, "in order"), ("embedded", 3, 1, "shuffled"), ("embedded", 12, 10_000, "backlog"),
         ("embedded", 12, 1, "backlog")]
KAFKA = [("kafka", 3, 10_000, "backlog"), ("kafka", 12, 1, "shuffled")]
ALL = [("embedded", partitions, batch, arrival) for partitions in (1, 3, 12) for batch in (10_000, 1)
       for arrival in ("in order", "shuffled", "backlog")]


def make_rows(seed):
    """Rows by device: times, and columns of values."""
    rng = random.Random(seed)
    begin = int(time.time()) // 3600 * loop.HOUR - DAY - 4 * loop.HOUR
    rows = []
    for device, count in enumerate(ROWS):
        times = [begin + at * (DAY // count) // 1000 * 1000 + device * 1000 for at in range(count)]
        columns = [[round(rng.gauss(mean, deviation)) for _ in times] for mean, deviation in loop.CENTRES]
        columns[3] = [None if rng.random() < 0.01 else value for value in columns[3]]
        columns.append([int(rng.random() < 0.1) for _ in times])
        rows.append((times, columns))
    return rows


def frames_of(rows, batch):
    """Frames of at most so many rows, by device, in order."""
    frames = []
    for device, (times, columns) in enumerate(rows):
        cuts = range(0, len(times), batch)
        frames.append([[device, device + 1, number, times[at:at + batch], [column[at:at + batch] for column in columns]]
                       for number, at in enumerate(cuts)])
    return frames


def waves(frames, arrival, rng):
    """Frames in the order of sending; a wave begins when what came before has been judged."""
    if arrival == "backlog":
        return [waves(frames[1:], "in order", rng)[0], frames[0]]
    if arrival == "in order":
        return [sorted((frame for mine in frames for frame in mine), key=lambda frame: frame[3][0])]
    mixed = []
    for mine in frames:
        for at in range(0, len(mine), SHUFFLED):
            part = mine[at:at + SHUFFLED]
            rng.shuffle(part)
            mixed.append(part)
    # Devices in any order, each one's parts in theirs.
    turns = [frame[0] for part in mixed for frame in part[:1]]
    rng.shuffle(turns)
    parts = {device: [part for part in mixed if part[0][0] == device] for device in range(len(frames))}
    return [[frame for device in turns for frame in parts[device].pop(0)]]


class Cell(loop.Pipeline):
    """One process with all roles on an embedded log or on Kafka."""

    def __init__(self, args, work, cell):
        log, partitions, batch, arrival = cell
        name = f"{log}-{partitions}-{batch}-{arrival.replace(' ', '-')}"
        super().__init__(args, work, name)
        kafka = f'kafka = "{args.kafka}"\nprefix = "{args.run}.{name}."\nsession_timeout = "3s"' if log == "kafka" else ""
        self.on_kafka = log == "kafka"
        self.port = loop.free_port()
        self.config.write_text(f"""
[log]
partitions = {partitions}
{kafka}
[gateway]
listen = "127.0.0.1:{self.port}"
[archive]
linger = "500ms"
[telemetry]
log = "{args.log}"
""")

    def register(self, devices, bundle):
        if self.on_kafka:
            self.command("topics", "apply")
        self.command("model", "register", "--tenant", "t", bundle)
        lines = [json.dumps({"tenant": "t", "device": f"d{at:04}", "model": "boiler", "version": "1.0.0",
                             "site": f"s{at % loop.SITES}", "cadence_s": 600}) for at in range(devices)]
        file = self.work / "devices.jsonl"
        file.write_text("\n".join(lines))
        answers = json.loads(self.command("--format", "json", "device", "import", file))
        self.tokens = [answer["token"] for answer in sorted(answers, key=lambda answer: answer["device"])]

    def begin(self):
        log = open(self.work / "serve.log", "a")
        self.running["all"] = subprocess.Popen(
            [self.args.binary, "--config", self.config, "--dir", self.work, "serve", "--instance", "one"],
            stdout=log, stderr=log)
        deadline = time.monotonic() + self.args.patience
        while time.monotonic() < deadline:
            if self.running["all"].poll() is not None:
                raise SystemExit((self.work / "serve.log").read_text()[-2000:])
            try:
                http.client.HTTPConnection("127.0.0.1", self.port, timeout=5).connect()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the gateway does not listen")

    def send(self, frames, schema):
        """Frames of one device that follow each other go in one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        at = 0
        while at < len(frames):
            device, end = frames[at][0], at
            while end < len(frames) and frames[end][0] == device and end - at < REQUEST_FRAMES:
                end += 1
            bodies = []
            for _, boot, sequence, times, columns in frames[at:end]:
                nothing = [None] * len(times)
                full = [times, *columns, nothing, nothing, nothing, nothing]
                bodies.append(loop.wire.encode(schema, full, boot, sequence))
            headers = {"Content-Type": "application/vnd.driftline.frames",
                       "Authorization": f"Bearer {self.tokens[device]}"}
            connection.request("POST", "/v1/frames", loop.wire.join(bodies), headers)
            response = connection.getresponse()
            text = response.read()
            if response.status == 200:
                at = end
            elif response.status in (429, 503):
                time.sleep(0.2)
            else:
                raise SystemExit(f"status {response.status}: {text[:300]}")

    def wait(self, wanted):
        """Until the whole estate's last measures of every window are of all its rows."""
        deadline = time.monotonic() + self.args.patience
        seen = None
        while time.monotonic() < deadline:
            try:
                rows = self.sql("SELECT window_start, max(rows) AS n FROM final_measures "
                                "WHERE signal = 'temperature' GROUP BY 1")
                seen = {loop.micros(row["window_start"]): row["n"] for row in rows}
            except subprocess.CalledProcessError:
                # A table is made when its first rows come.
                seen = None
            if seen == wanted:
                return
            time.sleep(0.5)
        raise SystemExit(f"{self.name}: not judged after {self.args.patience} s: {seen}, {wanted} are right; "
                         f"see {self.work}/serve.log")


def windows(rows):
    """Rows by window."""
    counts = {}
    for times, _ in rows:
        for at in times:
            counts[at // loop.HOUR * loop.HOUR] = counts.get(at // loop.HOUR * loop.HOUR, 0) + 1
    return counts


def run(args, work, cell, rows, schema, bundle):
    log, partitions, batch, arrival = cell
    pipeline = Cell(args, work, cell)
    began = time.monotonic()
    pipeline.register(len(ROWS), bundle)
    pipeline.begin()
    try:
        frames = frames_of(rows, batch)
        order = waves(frames, arrival, random.Random(args.seed))
        for at, wave in enumerate(order):
            pipeline.send(wave, schema)
            pipeline.wait(windows(rows[1:] if at + 1 < len(order) else rows))
        file = work / f"{batch}.jsonl"
        file.write_text("".join(json.dumps(frame) + "\n" for mine in frames for frame in mine))
        wanted, (lake, profiles, twice) = loop.expected(file), loop.found(pipeline)
        problems = loop.differences("lake of device", wanted[0], lake)
        problems += loop.differences("profile", wanted[1], profiles)
        if twice:
            problems.append(f"{twice} rows are in the lake twice")
        measures = loop.measures(pipeline)
        told = pipeline.sql("SELECT count(*) AS n, max(revision) AS r FROM measures")[0]
    finally:
        pipeline.stop()
    digest = hashlib.sha256("\n".join(measures).encode()).hexdigest()
    loop.say(f"{pipeline.name}: {len(measures)} final measures, {digest[:16]}")
    shutil.rmtree(pipeline.work, ignore_errors=True)
    result = {"log": log, "partitions": partitions, "batch": batch, "arrival": arrival,
              "frames": sum(map(len, frames)), "measures_said": told["n"], "highest_revision": told["r"],
              "final_measures": len(measures), "sha256": digest, "seconds": round(time.monotonic() - began, 1)}
    return result, [f"{pipeline.name}: {problem}" for problem in problems], measures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", help="host:port; two cells on it besides")
    parser.add_argument("--all", action="store_true", help="every cell")
    parser.add_argument("--binary", default=str(ROOT / "target" / "debug" / "driftline"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=240, help="seconds until a cell must be judged")
    parser.add_argument("--log", default="warn,delta_kernel=off,buoyant_kernel=off")
    args = parser.parse_args()
    # What the kill loop's pipeline wants to know besides.
    args.partitions, args.session_timeout, args.group_protocol = 1, "3s", "classic"
    args.run = f"determinism{args.seed}.{os.getpid()}.{int(time.time())}"
    cells = (ALL if args.all else SHORT) + (KAFKA if args.kafka else [])
    args.kafka = args.kafka or ""
    work = pathlib.Path(tempfile.mkdtemp(prefix="driftline-determinism-")).resolve()
    try:
        loop.say(f"seed {args.seed}: {sum(ROWS)} rows of {len(ROWS)} devices")
        rows = make_rows(args.seed)
        subprocess.run([args.binary, "simulate", "--prepare", work / "estate", "--tenant", "t"], check=True,
                       capture_output=True)
        bundle = work / "estate" / "bundle"
        shown = subprocess.run([args.binary, "--format", "json", "model", "show", bundle], check=True,
                               capture_output=True, text=True).stdout
        schema = json.loads(shown)["frames"]["inferences"]
        results, problems, first = [], [], None
        for cell in cells:
            result, more, measures = run(args, work, cell, rows, schema, bundle)
            results.append(result)
            problems += more
            first = first or measures
            if measures != first:
                only = sorted(set(measures) ^ set(first))
                problems.append(f"{cell}: {len(only)} final measures differ from the first cell's: {only[:2]}")
        print(json.dumps({"seed": args.seed, "rows": sum(ROWS), "cells": results, "problems": problems}, indent=2))
        return 1 if problems else 0
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
