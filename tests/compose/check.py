#!/usr/bin/env python3
"""Checks the stack's files without an engine: what compose.yaml promises of each service, that what
refers to something finds it, and that nothing is `latest` or secret. Needs PyYAML (Debian python3-yaml).
Exit code 1 and a line per problem."""
import json
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = ROOT / "compose"
ROLES = {"ingest", "profile", "labels", "detect", "vitals", "archive", "alerting"}
problems = []


def check(holds, problem):
    if not holds:
        problems.append(problem)


def services():
    stack = yaml.safe_load((STACK / "compose.yaml").read_text())
    for name, service in stack["services"].items():
        image = service["image"]
        tag = image.rpartition(":")[2] if ":" in image else ""
        check(tag and tag != "latest", f"{name}: image {image} has no stated version")
        check(service.get("restart"), f"{name}: no restart policy")
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        check({"cpus", "memory"} <= set(limits), f"{name}: no limits of processor and memory")
        check("no-new-privileges:true" in service.get("security_opt", []), f"{name}: may gain privileges")
        if name not in ("topics", "estate", "collector"):
            check("test" in service.get("healthcheck", {}), f"{name}: no health check")
        for port in service.get("ports", []):
            check(str(port).startswith("127.0.0.1:"), f"{name}: port {port} is open to the network")
        for secret in service.get("secrets", []):
            check(secret in stack["secrets"], f"{name}: unknown secret {secret}")
        for setting, value in (service.get("environment") or {}).items():
            check(not re.search("PASSWORD|SECRET|TOKEN", setting) or str(value).startswith("/run/secrets/"),
                  f"{name}: {setting} is no file of a secret")
        if image.startswith("driftline:"):
            check(service.get("read_only") is True, f"{name}: its root file system can be written")
            check(service.get("cap_drop") == ["ALL"], f"{name}: keeps capabilities")
        for other in service.get("depends_on") or {}:
            check(other in stack["services"], f"{name}: depends on {other}, which is not there")
    for role in ROLES:
        command = stack["services"].get(role, {}).get("command")
        check(command == ["serve", "--role", role], f"no service of its own for role {role}")
    for kind in ("configs", "secrets"):
        for name, item in stack[kind].items():
            check("file" in item, f"{kind} {name} is no file")
    for name, item in stack["configs"].items():
        check((STACK / item["file"]).is_file(), f"config {name}: {item['file']} is not there")
    ignored = (ROOT / ".gitignore").read_text().split()
    check("/compose/secrets.d" in ignored, "secrets are not ignored by git")
    tracked = subprocess.run(["git", "ls-files", "compose/secrets.d"], cwd=ROOT, capture_output=True, text=True)
    check(not tracked.stdout.strip(), "secrets are part of the repository")
    return stack


def watching(stack):
    scraped = yaml.safe_load((STACK / "prometheus.yml").read_text())
    targets = [target for job in scraped["scrape_configs"] for static in job["static_configs"]
               for target in static["targets"]]
    for target in targets:
        check(target.split(":")[0] in stack["services"], f"prometheus: target {target} is no service")
    for role in ROLES:
        check(f"{role}:9464" in targets, f"prometheus: {role} is not scraped")
    collector = yaml.safe_load((STACK / "collector.yaml").read_text())
    for name, pipeline in collector["service"]["pipelines"].items():
        for kind in ("receivers", "processors", "exporters"):
            for part in pipeline[kind]:
                check(part in collector[kind], f"collector: pipeline {name} has no {kind} {part}")
    sources = yaml.safe_load((STACK / "grafana/datasources/driftline.yaml").read_text())["datasources"]
    known = {source["uid"] for source in sources}
    for file in (STACK / "grafana/dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        check(panels, f"{file.name}: no panels")
        check(len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), f"{file.name}: an id twice")
        for panel in panels:
            check(panel["datasource"]["uid"] in known, f"{file.name}: {panel['title']} has no data source")
            check(all(target["expr"] for target in panel["targets"]), f"{file.name}: {panel['title']} asks nothing")


def dockerfile():
    text = (STACK / "Dockerfile").read_text()
    images = re.findall(r"^FROM\s+(\S+)", text, re.M)
    stages = re.findall(r"^FROM\s+\S+\s+AS\s+(\S+)", text, re.M)
    for image in images:
        check(image in ("scratch", "${BINARY}", *stages) or (":" in image and not image.endswith(":latest")),
              f"Dockerfile: {image} has no stated version")
    last = text[text.rindex("FROM "):]
    check(re.search(r"^USER\s+(?!0|root)\S+", last, re.M), "Dockerfile: the last stage runs as root")


stack = services()
watching(stack)
dockerfile()
for problem in problems:
    print(problem)
sys.exit(bool(problems))
