#!/usr/bin/env python3
"""What is around the roles fails, and comes back: nothing is lost or doubled.

    tests/kafka/faults.py                        # all of them, on a broker of its own
    tests/kafka/faults.py --kafka HOST:PORT --faults disk --seconds 20

- disk: the file system of the lake fills up to the last page (a tmpfs, which takes the right to mount one);
- store: the lake's object store answers 503 to everything for a time (versitygw, see tests/s3/start);
- clock: the clock of every role is an hour back for a time, and right again after it.

The roles run in processes of their own. Devices go on sending all the time. At the end the lake and the
profiles equal what is computed from the input, and what was done is read back from metrics and logs. What
cannot be had is left out and named. Prints one JSON document; exit code 1 when anything is wrong.
"""
import argparse
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kill_loop as loop  # noqa: E402

ROOT = loop.ROOT
loop.ROLES = [("ingest", 1), ("profile", 1), ("detect", 1), ("archive", 1), ("alerting", 1)]
TOLD = [*loop.TOLD, "driftline_clock_set_total"]
# What the roles' logs say.
AGAIN, CLOCK = "step failed and is tried again", "the machine's clock was set"
# Enough for a lake of the input, small enough to be filled in a moment.
DISK_MB = 64


class Store:
    """Stands before an object store, and answers 503 to everything when it is told to."""

    def __init__(self, upstream):
        self.upstream, self.refusing, self.refused = upstream, False, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        """One connection: refused, or passed on byte by byte, until it ends or refusing begins."""
        with contextlib.suppress(OSError), client:
            if self.refusing:
                client.recv(65536)
                self.refused += 1
                client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(self.upstream) as upstream:
                threading.Thread(target=self.copy, args=(upstream, client), daemon=True).start()
                self.copy(client, upstream)

    def copy(self, source, target):
        with contextlib.suppress(OSError):
            while (some := source.recv(65536)) and not self.refusing:
                target.sendall(some)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Pipeline(loop.Pipeline):
    def __init__(self, args, work, name, lake, environment):
        super().__init__(args, work, name)
        self.environment = environment
        self.config.write_text(self.config.read_text().replace(f'url = "{self.work}/lake"', f'url = "{lake}"'))

    def command(self, *arguments, **more):
        return super().command(*arguments, env=dict(os.environ, **self.environment), **more)


@contextlib.contextmanager
def small_disk(path):
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", path], capture_output=True)
    if mounted.returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", path], check=False)


def until(what, look, patience):
    deadline = time.monotonic() + patience
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {patience} s")
        time.sleep(0.5)


def run(args, work, name, lake, environment, fault, is_told, common):
    """Devices send; in the middle of it the fault begins, stays for a time and until it is told of, and ends."""
    frames, order, bundle, schema, answers = common
    pipeline = Pipeline(args, work, name, lake, environment)
    tokens = pipeline.register(args.devices, bundle)
    pipeline.start_all()
    problems = []
    try:
        sender = loop.Sender(pipeline, frames, order, tokens, schema, args.seconds * 2, args)
        # In the middle of it.
        until("an archived row", lambda: rows(pipeline) > 0, args.patience)
        before = pipeline.told(TOLD)
        end = fault(pipeline)
        loop.say(f"{name}: begun")
        begun = time.monotonic()
        while end or not sender.is_done():
            time.sleep(0.5)
            pipeline.look_after()
            stayed = time.monotonic() - begun
            # One that nothing ever tells of ends too, and fails below.
            if end and stayed > args.seconds and (is_told(pipeline, before) or stayed > args.patience):
                if stayed > args.patience:
                    # A fault that nobody can read of was not there, or was hidden.
                    problems.append(f"{args.patience} s of it: metrics and logs do not tell")
                end()
                end = None
                loop.say(f"{name}: over")
        if sender.problems:
            raise SystemExit(f"{name}: the gateway refused: {sender.problems[0]}")
        loop.drain(pipeline, args, sum(mine[0] for mine in answers[0].values()))
        after = pipeline.told(TOLD)
        found, profiles, twice = loop.found(pipeline)
        problems += loop.differences("lake of device", answers[0], found)
        problems += loop.differences("profile", answers[1], profiles)
        if twice:
            problems.append(f"{twice} rows are in the lake twice")
        result = {"rows": sum(mine[0] for mine in found.values()), "twice": twice, "metrics_before": before,
                  "metrics_after": after, "tried_again": pipeline.logged(AGAIN), "clock_logged": pipeline.logged(CLOCK),
                  "ended_by_themselves": pipeline.ended, "measures": len(loop.measures(pipeline)), **sender.counts}
        return result, problems, pipeline
    finally:
        pipeline.stop()


def rows(pipeline):
    try:
        return pipeline.sql("SELECT count(*) AS n FROM inferences")[0]["n"]
    except subprocess.CalledProcessError:
        # The table is made when its first rows come.
        return 0


def failures(pipeline, before):
    """Whether metrics and logs tell of a step that failed since."""
    count = "driftline_stage_failures_total"
    return pipeline.told(TOLD).get(count, 0) > before.get(count, 0) and pipeline.logged(AGAIN) > 0


def clocks(pipeline, _before):
    """Whether metrics and logs tell that every role's clock was set."""
    return pipeline.told(TOLD).get("driftline_clock_set_total", 0) == len(loop.ROLES) == pipeline.logged(CLOCK)


def with_disk(args, work, common):
    disk = work / "disk-lake"
    with small_disk(disk) as mounted:
        if not mounted:
            return None
        filler = disk / "filler"

        def fill(pipeline):
            full = subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True)
            if full.returncode == 0:
                raise SystemExit("there was no end to the disk")
            return filler.unlink

        return run(args, work, "disk", str(disk / "lake"), {}, fill, failures, common)[:2]


def with_store(args, work, common):
    given = os.environ.get("DRIFTLINE_S3")
    own = None
    if not given:
        started = subprocess.run([ROOT / "tests" / "s3" / "start"], capture_output=True, text=True)
        if started.returncode:
            return None
        given = own = started.stdout.strip()
    try:
        return on_store(args, work, common, given)
    finally:
        if own:
            subprocess.run([ROOT / "tests" / "s3" / "stop", own], check=True)


def on_store(args, work, common, given):
    host, port = given.removeprefix("http://").split(":")
    store = Store((host, int(port)))
    environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}", "AWS_ALLOW_HTTP": "true",
                   "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "driftline-test",
                   "AWS_SECRET_ACCESS_KEY": "driftline-test"}

    def refuse(pipeline):
        store.refusing = True

        def serve():
            store.refusing = False

        return serve

    result, problems, _ = run(args, work, "store", f"s3://lake/{args.run}", environment, refuse, failures, common)
    result["requests_refused"] = store.refused
    return result, problems


def with_clock(args, work, common):
    shift = work / "clock.shift"
    shift.write_text("0")

    def back(pipeline):
        # Written at once, so that no process reads half of it.
        def set_to(seconds):
            new = work / "clock.shift.new"
            new.write_text(seconds)
            new.rename(shift)

        set_to("-3600")
        return lambda: set_to("0")

    environment = {"DRIFTLINE_CLOCK_SHIFT": str(shift)}
    result, problems, _ = run(args, work, "clock", str(work / "clock-lake"), environment, back, clocks, common)
    # Each role sees it go back, and then forth.
    wanted = 2 * len(loop.ROLES)
    if not result["clock_logged"] == wanted == result["metrics_after"].get("driftline_clock_set_total"):
        problems.append(f"metrics or logs do not tell of {wanted} times that a clock was set")
    return result, problems


FAULTS = {"disk": (with_disk, "the right to mount a tmpfs"),
          "store": (with_store, "versitygw, which takes Go"),
          "clock": (with_clock, "nothing")}


def faults(args, work):
    loop.say(f"seed {args.seed}: making {args.rows} rows of {args.devices} devices")
    common = loop.prepare(args, work)
    results, problems, left_out = {}, [], []
    for name in args.faults.split(","):
        run_it, needs = FAULTS[name]
        came = run_it(args, work, common)
        if came is None:
            loop.say(f"LEFT OUT: {name}, for want of {needs}")
            left_out.append(name)
            continue
        results[name] = came[0]
        problems += [f"{name}: {problem}" for problem in came[1]]
    print(json.dumps({"seed": args.seed, "rows": args.rows, "faults": results, "left_out": left_out,
                      "problems": problems}, indent=2))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", help="host:port; without it a broker of its own")
    parser.add_argument("--faults", default="disk,store,clock")
    parser.add_argument("--binary", default=str(ROOT / "target" / "debug" / "driftline"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60, help="how long each fault stays at least")
    parser.add_argument("--patience", type=float, default=600)
    parser.add_argument("--log", default="info,datafusion=warn,delta_kernel=off,buoyant_kernel=off,deltalake=warn")
    parser.add_argument("--keep", help="folder for logs and lakes; without it they are removed")
    args = parser.parse_args()
    # What the kill loop's input, pipeline and senders want to know besides.
    args.frame_rows, args.resends, args.lost_replies, args.partitions = 60, 0.08, 0.03, 3
    args.session_timeout, args.group_protocol = "3s", "classic"
    with loop.surroundings(args, f"faults{args.seed}") as work:
        return faults(args, work)


if __name__ == "__main__":
    sys.exit(main())
