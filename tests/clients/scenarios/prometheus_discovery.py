"""Prometheus finds containers by its Docker service discovery, with their labels, state and addresses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

SCRATCH = Path(os.environ["SCRATCH"])
NAME = os.environ["NAME"]
CONFIG = f"""
scrape_configs:
  - job_name: containers
    docker_sd_configs:
      - host: {os.environ["DOCKER_HOST"]}
        refresh_interval: 1s
    relabel_configs:
      - source_labels: [__meta_docker_container_name]
        regex: /{NAME}
        action: keep
"""


def discovered(port: int) -> list[dict[str, str]]:
    """Labels of what was found so far."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=30) as answer:
            return [target["discoveredLabels"] for target in json.load(answer)["data"]["activeTargets"]]
    except OSError:
        return []


def main() -> None:
    docker = ["docker"]
    run = ["run", "-d", "--name", NAME, "--label", "role=web", "--expose", "9100", os.environ["IMAGE"], "sleep", "1000"]
    subprocess.run([*docker, *run], check=True, capture_output=True)
    (SCRATCH / "prometheus.yml").write_text(CONFIG)
    port = 30000 + os.getpid() % 20000
    argv = ["prometheus", f"--config.file={SCRATCH}/prometheus.yml", f"--storage.tsdb.path={SCRATCH}/data"]
    with (SCRATCH / "log").open("w") as log:
        server = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while not (found := discovered(port)):
            assert time.monotonic() < end, (SCRATCH / "log").read_text()[-3000:]
            time.sleep(0.2)
        labels = found[0]
        assert labels["__meta_docker_container_name"] == f"/{NAME}", labels
        assert labels["__meta_docker_container_label_role"] == "web", labels
        assert labels["__meta_docker_network_name"] == "bridge" and labels["__meta_docker_network_ip"], labels
        assert labels["__address__"].endswith(":9100"), labels
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        subprocess.run([*docker, "rm", "-f", NAME], check=True, capture_output=True)


main()
