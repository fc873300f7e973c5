"""oha through the gateway: oha_client.py URL. Every request must be answered with 200, whatever the load's shape."""

import json
import os
import subprocess
import sys

SHAPES = {
    "keep-alive": ["-n", "2000", "-c", "16", "/users/7"],
    "own connections": ["-n", "300", "-c", "16", "--disable-keepalive", "/users/7"],
    "uploads": ["-n", "300", "-c", "16", "-m", "POST", "-d", "x" * 20_000, "/echo"],
    "streams": ["-n", "100", "-c", "16", "/events?n=5&every=1"],
    "a fixed rate": ["-n", "200", "-c", "8", "-q", "1000", "--latency-correction", "/bytes?n=100000"],
}


def main(gateway: str) -> None:
    for name, (*options, path) in SHAPES.items():
        command = [os.environ.get("OHA", "oha"), "--no-tui", "--output-format", "json", *options, gateway + path]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
        wanted = {"200": int(options[1])}
        statuses, errors = report["statusCodeDistribution"], report["errorDistribution"]
        assert statuses == wanted and not errors, f"{name}: {statuses}, {errors}"


main(sys.argv[1])
