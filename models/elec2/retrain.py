#!/usr/bin/env python3
"""Retrains a model when Driftline's webhook says so: electricity prices of New South Wales, week by week.

    venv/bin/pip install -r models/elec2/requirements.txt
    venv/bin/python models/elec2/retrain.py --binary target/release/driftline

A classifier of whether the price goes up or down learns from the first half year. Every week is then replayed by
`driftline replay` as an hour of a device, with its labels. Where an alert opens, `on_alert` below learns anew from the weeks
just past, packs and registers the next version, and the device runs that one from the next week on. Printed are prequential
accuracies (each row is predicted before its label is learnt from): left alone, retrained on alerts, retrained every four weeks,
and "no change", which says what was right half an hour before.
"""
import argparse
import collections
import csv
import gzip
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT.parent / "shared" / "data" / "elec2.csv.gz"
FEATURES = ["day", "period", "nswdemand", "vicprice", "vicdemand", "transfer"]
LABEL, DEVICE = "class", "nsw"
WEEK, FIRST_WEEKS, HOUR = 7 * 48, 26, 3600
# Longest wait for the verdict on a week, seconds.
PATIENCE = 600
# An hour has 336 rows.
INTERVAL = "10s"


class Webhooks:
    """Notes the alerts that open, and with which model version."""

    def __init__(self):
        self.opened = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.opened.append(message)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Driftline:
    def __init__(self, binary, work, url):
        self.binary, self.work = binary, work
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.gateway = f"127.0.0.1:{free.getsockname()[1]}"
        self.config = work / "driftline.toml"
        self.config.write_text(f"""
[gateway]
listen = "{self.gateway}"
[archive]
linger = "200ms"
[[alerting.routes]]
name = "retrain"
url = "{url}"
[telemetry]
log = "error"
listen = "127.0.0.1:0"
""")
        self.log = open(work / "serve.log", "w")
        self.serve = subprocess.Popen([binary, "--config", self.config, "--dir", work / "data", "serve"],
                                      stdout=self.log, stderr=self.log)

    def run(self, *arguments):
        done = subprocess.run([self.binary, "--config", self.config, "--dir", self.work / "data", "--format", "json",
                               *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"driftline {' '.join(map(str, arguments))}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def number(self, statement):
        return list(self.run("sql", "-c", statement)[0].values())[0] or 0


class Estate:
    """Weeks that become hours of one device."""

    def __init__(self, driftline, webhooks, rows, begin, work):
        self.driftline, self.webhooks, self.rows, self.begin, self.work = driftline, webhooks, rows, begin, work
        self.version, self.learnt_from, self.model = 0, 0, None
        self.labelled = collections.Counter()

    def week(self, at):
        return self.rows[at * WEEK:(at + 1) * WEEK]

    def learn(self, weeks):
        """Learns from weeks, and ships it as the next version. What is kept to compare with are the same weeks."""
        rows = [row for at in weeks for row in self.week(at)]
        self.model = fit(rows)
        self.version += 1
        onnx = self.work / f"v{self.version}.onnx"
        options = {id(self.model): {"zipmap": False}}
        inputs = np.zeros((1, len(FEATURES)), np.float32)
        onnx.write_bytes(to_onnx(self.model, inputs, options=options, target_opset={"": 17, "ai.onnx.ml": 3})
                         .SerializeToString())
        table = self.work / f"v{self.version}.csv"
        times = [self.begin + at * HOUR + row * 10 for at in weeks for row in range(WEEK)]
        write(table, ["device", "time", *FEATURES, LABEL], [[DEVICE, t, *row] for t, row in zip(times, rows)])
        bundle = self.work / f"v{self.version}"
        self.driftline.run("model", "pack", "--onnx", onnx, "--rows", table, "--label", LABEL, "--time", "time",
                           "--device", "device", "--name", "elec2", "--version", f"{self.version}.0.0", "--out", bundle)
        self.driftline.run("model", "register", bundle)
        return bundle

    def replay(self, at, bundle, tokens):
        """Sends a week and waits until all of it, labels included, has been judged; kinds of alerts that opened."""
        table = self.work / "week.csv"
        rows = self.week(at)
        write(table, [*FEATURES, LABEL], rows)
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.begin + at * HOUR))
        before = len(self.webhooks.opened)
        self.driftline.run("replay", "--bundle", bundle, "--input", table, "--label", LABEL, "--start", start,
                           "--interval", INTERVAL, "--tokens-file", tokens, "--to", f"http://{self.driftline.gateway}")
        self.labelled[self.version] += len(rows)
        deadline = time.monotonic() + PATIENCE
        while True:
            judged = self.driftline.number(
                "SELECT coalesce(sum(rows), 0) AS n FROM final_measures WHERE signal = 'error' AND method = 'shift' "
                f"AND cohort = 'estate' AND version = '{self.version}.0.0'")
            if judged >= self.labelled[self.version]:
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"week {at}: {judged} of {self.labelled[self.version]} labels were judged")
            time.sleep(0.2)
        # An alert has been told when its webhook was delivered.
        told = self.driftline.number("SELECT count(*) AS n FROM alerts WHERE change = 'opened'")
        while sum(kind_of(message) is not None for message in self.webhooks.opened) < told:
            if time.monotonic() > deadline:
                raise SystemExit(f"week {at}: {told} alerts opened, {len(self.webhooks.opened)} webhooks came")
            time.sleep(0.1)
        return [kind_of(message) for message in self.webhooks.opened[before:] if kind_of(message)]


def kind_of(message):
    """What an alert that opens is about; none of other messages."""
    alert = message.get("data", message)
    if alert.get("change") != "opened":
        return None
    finding = alert.get("finding", alert)
    return f"{finding['kind']} of {finding['version']}"


def write(path, head, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def table(rows):
    return np.array([row[:-1] for row in rows], np.float32), np.array([row[-1] for row in rows])


def fit(rows):
    model = RandomForestClassifier(n_estimators=30, max_depth=8, min_samples_leaf=5, random_state=1)
    return model.fit(*table(rows))


def on_alert(estate, at, weeks):
    """What a team does when the webhook comes: learn from what is labelled by now, ship it."""
    return estate.learn(range(at + 1 - weeks, at + 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "driftline"))
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--weeks", type=int, help="of the data, in place of all")
    parser.add_argument("--learn-weeks", type=int, default=12, help="that a new version learns from")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for bundles, the log and the lake; else they are removed")
    args = parser.parse_args()
    if not args.data.exists():
        sys.exit(f"{args.data} is not there: name the table with --data")
    with gzip.open(args.data, "rt") as file:
        records = list(csv.DictReader(file))
    rows = [[*(float(it[name]) for name in FEATURES), it[LABEL]] for it in records]
    weeks = min(args.weeks or len(rows), len(rows) // WEEK)
    begin = int(time.time()) // HOUR * HOUR - (weeks + 1) * HOUR
    with tempfile.TemporaryDirectory(prefix="driftline-retrain-") as folder:
        work, webhooks = args.keep or pathlib.Path(folder), Webhooks()
        work.mkdir(exist_ok=True)
        driftline = Driftline(args.binary, work, webhooks.url)
        try:
            run(args, Estate(driftline, webhooks, rows, begin, work), weeks)
        finally:
            driftline.serve.terminate()
            driftline.serve.wait(60)


def run(args, estate, weeks):
    bundle = estate.learn(range(FIRST_WEEKS))
    added = estate.driftline.run("device", "add", DEVICE, "--model", "elec2", "--version", "1.0.0", "--site", "sydney")
    tokens = estate.work / "tokens"
    tokens.write_text(json.dumps(added) + "\n")
    left_alone = regular = estate.model
    right, retrained = collections.Counter(), 0
    labels = [row[-1] for row in estate.rows]
    for at in range(FIRST_WEEKS, weeks):
        features, truth = table(estate.week(at))
        begin = at * WEEK
        right["left alone"] += sum(left_alone.predict(features) == truth)
        right["retrained on alerts"] += sum(estate.model.predict(features) == truth)
        right["every four weeks"] += sum(regular.predict(features) == truth)
        right["no change"] += sum(labels[begin + it - 1] == truth[it] for it in range(WEEK))
        alerts = estate.replay(at, bundle, tokens)
        if (at - FIRST_WEEKS) % 4 == 3:
            regular = fit([row for it in range(at + 1 - args.learn_weeks, at + 1) for row in estate.week(it)])
        if alerts:
            bundle = on_alert(estate, at, args.learn_weeks)
            retrained += 1
            print(f"week {at}: {', '.join(alerts)}; version {estate.version}.0.0 is shipped", flush=True)
    rows = (weeks - FIRST_WEEKS) * WEEK
    print(f"\n{rows} rows, {retrained} times retrained\n\n| model | accuracy |\n| --- | --- |")
    for name, count in right.items():
        print(f"| {name} | {count / rows:.4f} |")


if __name__ == "__main__":
    main()
