#!/usr/bin/env python3
"""Speed on Kafka: Driftline, bare clients and Kafka Streams against one broker, in one run.

    tests/kafka/speed.py                       # builds, starts a broker, measures, prints; most of an hour
    tests/kafka/speed.py --kafka HOST:PORT --parts gateway,stage --repeats 1

- bare: producers of rows of 64 bytes, in records of 1, 100 and 1,000 rows, and with transactions;
- gateway: to Kafka, beside a bare producer that appends the same payloads;
- stage: the profile stage, every step a transaction, beside a bare consumer that decodes and counts;
- streams: one-minute windowed histograms of 16 features per cohort, final windows to a topic, exactly once:
  Driftline (profile stage and a stage that merges its profiles into final windows) beside Kafka Streams in two
  forms, JSON rows and Driftline's stored records, each at its defaults and tuned;
- latency: tests/kafka/latency.py.

Each figure is taken --repeats times, and all of one part in turn, so that what else the machine does meets all of
them. Prints a line per figure (least to greatest, and the median), with the CPU time of the client or stage for a
million rows, and the ratios beside their targets; --json FILE writes everything. Needs cargo, a JDK of 17 or later, and Maven.
"""
import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from statistics import median

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kill_loop as loop  # noqa: E402
import latency  # noqa: E402

ROOT = loop.ROOT
STREAMS = ROOT / "tests" / "kafka" / "streams"
PARTS = ["bare", "gateway", "stage", "streams", "latency"]
# (name, store, tuned, threads) of Kafka Streams.
FORMS = [("defaults", "rocksdb", "no", 1), ("tuned, RocksDB", "rocksdb", "yes", 1),
         ("tuned, memory", "memory", "yes", 1), ("tuned, memory, 2 threads", "memory", "yes", 2)]


def build(args):
    """Executables by name."""
    found = {}
    builds = [["bench", "--no-run", "--workspace", "--bench", "bare", "--bench", "gateway", "--bench", "kafka"]]
    if "latency" in args.parts:
        builds.append(["build", "--profile", "bench", "--workspace", "--bin", "driftline"])
    for arguments in builds:
        built = subprocess.run(["cargo", *arguments, "--message-format", "json-render-diagnostics"], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True, check=True)
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable"):
                found[message["target"]["name"]] = message["executable"]
    return found


def build_streams():
    """The class path of Kafka Streams and the program."""
    cache = pathlib.Path(os.environ.get("DRIFTLINE_CACHE") or os.path.expanduser("~/.cache/driftline"))
    folder = cache / "streams"
    subprocess.run(["mvn", "-q", "-B", "-f", STREAMS / "pom.xml", f"-Dfolder={folder}", "compile",
                    "dependency:copy-dependencies", f"-DoutputDirectory={folder}/libs"], check=True,
                   stdout=subprocess.DEVNULL)
    return f"{folder}/classes:{folder}/libs/*"


class Run:
    def __init__(self, args, work):
        self.args, self.work = args, work
        self.figures = collections.defaultdict(list)
        # CPU seconds of the process for a million rows, where it tells; a rate says less on a busy machine.
        self.cpu = collections.defaultdict(list)
        self.others = {}
        self.ratios = []
        self.tools = build(args)
        self.java = build_streams() if "streams" in args.parts else None
        self.serial = 0

    def fresh(self):
        self.serial += 1
        return f"n{self.serial}"

    def tool(self, name, **arguments):
        """Runs an executable with `name=value` arguments; gives the JSON document that it prints."""
        return self.call(name, [self.tools[name]], arguments)

    def jvm(self, **arguments):
        state = tempfile.mkdtemp(dir=self.work)
        try:
            return self.call("streams", ["java", "-Xmx2g", "-XX:+UseParallelGC", "-cp", self.java, "driftline.Job"],
                             {"folder": state, **arguments})
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def call(self, name, command, arguments):
        given = {"brokers": self.args.kafka, **arguments}
        given["do"] = given.pop("do_", "")
        output = subprocess.run([*command, *(f"{key}={value}" for key, value in given.items())],
                                stdout=subprocess.PIPE, text=True, check=True, cwd=self.work)
        try:
            return json.loads(output.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise SystemExit(f"{name} {given} printed {output.stdout!r}") from None

    def note(self, name, result, rate="rate"):
        self.figures[name].append(result[rate])
        if "cpu_s" in result:
            self.cpu[name].append(result["cpu_s"] / result["rows"] * 1e6)
        self.others[name] = {key: value for key, value in result.items() if key not in ("rate", "seconds")}
        loop.say(f"{name}: {show(result[rate])} rows/s  {self.others[name]}")
        return result

    def ratio(self, what, of, to, target):
        """Of each repeat; what is beside each other was measured one after the other."""
        values = [a / b for a, b in zip(self.figures[of], self.figures[to])]
        computed = [b / a for a, b in zip(self.cpu[of], self.cpu[to])]
        if values:
            self.ratios.append({"what": what, "least": min(values), "median": median(values),
                                "greatest": max(values), "by_cpu_time": median(computed) if computed else None,
                                "target": target, "met": median(values) >= target})


def show(rate):
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.1f} k"


def bare(run):
    for _ in range(run.args.repeats):
        for rows, per, transaction in [(1_000_000, 1, 0), (8_000_000, 100, 0), (8_000_000, 1_000, 0),
                                       (8_000_000, 1_000, 100_000)]:
            name = run.fresh()
            result = run.tool("bare", do_="produce", prefix=f"{run.args.run}.", topic=name, run=name, rows=rows,
                              per=per, transaction=transaction, partitions=2)
            words = f"{per} rows a record" + (f", a transaction per {transaction} rows" if transaction else "")
            run.note(f"bare producer, 64-byte rows, {words}", result)


def gateway(run):
    for clients, frames in [(16, 16), (4, 16)]:
        ours, theirs = (f"{what}, {clients} clients, {frames} frames a request"
                        for what in ("gateway", "bare producer of the same payloads"))
        for _ in range(run.args.repeats):
            prefix = f"{run.args.run}.{run.fresh()}."
            run.note(ours, run.tool("gateway", prefix=prefix, clients=clients, frames=frames, rows=run.args.gateway_rows))
            run.note(theirs, run.tool("bare", do_="again", prefix=prefix, topic="inferences", partitions=4, run="0"))
        run.ratio(f"gateway to the bare producer of the same payloads, {clients} clients", ours, theirs, 0.6)


def fill(run):
    """Stored records, once; gives their prefix and the layout's file."""
    if not hasattr(run, "filled"):
        prefix, reference = f"{run.args.run}.job.", run.work / "reference.bin"
        filled = run.tool("kafka", do_="fill", prefix=prefix, rows=run.args.rows, partitions=2, reference=reference)
        loop.say(f"filled: {filled}")
        run.filled = prefix, reference
    return run.filled


def stage(run):
    prefix, reference = fill(run)
    for _ in range(run.args.repeats):
        for members in (1, 2):
            run.note(f"bare consumer that decodes and counts, {members} thread(s)",
                     run.tool("bare", do_="consume", prefix=prefix, topic="inferences", partitions=2, members=members,
                              reference=reference))
            for pane in ("15m", "1m"):
                run.note(f"profile stage, panes of {pane}, {members} member(s)",
                         run.tool("kafka", do_="stage", prefix=prefix, members=members, pane=pane, run=run.fresh()))
    for members in (1, 2):
        for pane in ("15m", "1m"):
            run.ratio(f"profile stage to the bare consumer, panes of {pane}, {members} thread(s) each",
                      f"profile stage, panes of {pane}, {members} member(s)",
                      f"bare consumer that decodes and counts, {members} thread(s)", 0.5)


def streams(run):
    prefix, _ = fill(run)
    packed, rows = f"{prefix}inferences", f"{prefix}json"
    run.jvm(do_="json", input=packed, output=rows, total=run.args.json_rows)
    for _ in range(run.args.repeats):
        run.note("bare read of the stored records in Java",
                 run.jvm(do_="read", input=packed, total=run.args.rows), "rate_of_second_half")
        for members in (1, 2):
            run.note(f"Driftline, final windows, {members} member(s)",
                     run.tool("kafka", do_="windows", prefix=prefix, members=members, pane="1m", run=run.fresh()))
        for name, store, tuned, threads in FORMS:
            for form, topic, total in (("stored records", packed, run.args.rows), ("JSON rows", rows, run.args.json_rows)):
                result = run.jvm(do_="packed" if topic == packed else "rows", input=topic, total=total, threads=threads,
                                 output=f"{prefix}out.{run.fresh()}", store=store, tuned=tuned)
                run.note(f"Kafka Streams, {form}, {name}", result, "rate_of_second_half")
    ours = best(run, "Driftline, final windows")
    for form, target in (("stored records", 1.0), ("JSON rows", 15.0)):
        theirs = best(run, f"Kafka Streams, {form}")
        run.ratio(f"the same job, {form}: [{ours}] to [{theirs}]", ours, theirs, target)


def best(run, beginning):
    """The setting with the greatest median."""
    names = [name for name in run.figures if name.startswith(beginning)]
    return max(names, key=lambda name: median(run.figures[name]))


def end_to_end(run):
    args = argparse.Namespace(**vars(run.args))
    args.binary, args.partitions = run.tools["driftline"], 2
    args.session_timeout, args.group_protocol = "10s", "classic"
    run.latency = latency.measure(args, run.work)
    loop.say(json.dumps(run.latency))


def report(run):
    for name, values in run.figures.items():
        computed = run.cpu.get(name)
        print(f"{name}: {show(min(values))} to {show(max(values))} rows/s, median {show(median(values))}"
              + (f"; {median(computed):.3f} CPU-s a million rows" if computed else ""))
    for ratio in run.ratios:
        by_cpu = f", {ratio['by_cpu_time']:.2f} by CPU time" if ratio["by_cpu_time"] else ""
        print(f"{ratio['what']}: {ratio['least']:.2f} to {ratio['greatest']:.2f}, median {ratio['median']:.2f}{by_cpu}; "
              f"target {ratio['target']:g}: {'met' if ratio['met'] else 'MISSED'}")
    if hasattr(run, "latency"):
        print(json.dumps(run.latency, indent=2))
    if run.args.json:
        document = {"figures": run.figures, "cpu_s_per_million_rows": run.cpu, "last": run.others, "ratios": run.ratios,
                    "latency": getattr(run, "latency", None)}
        pathlib.Path(run.args.json).write_text(json.dumps(document, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", help="host:port; without it a broker of its own, see tests/kafka/start")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16_000_000, help="stored rows that are read again and again")
    parser.add_argument("--json-rows", type=int, default=2_000_000, help="of them, as JSON documents")
    parser.add_argument("--gateway-rows", type=int, default=5_120_000)
    parser.add_argument("--json", help="file for everything that was seen")
    latency.add_arguments(parser)
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    with loop.surroundings(args, "speed") as work:
        run = Run(args, work)
        functions = {"bare": bare, "gateway": gateway, "stage": stage, "streams": streams, "latency": end_to_end}
        for part in PARTS:
            if part in args.parts:
                functions[part](run)
        report(run)


if __name__ == "__main__":
    sys.exit(main())
