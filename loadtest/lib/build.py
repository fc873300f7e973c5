"""Builds what is measured, and finds where cargo put it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

from .processes import Failure

REPOSITORY = Path(__file__).resolve().parent.parent.parent

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


# A package outside the workspace, which some scenarios need.
HANDSHAKES = "loadtest-handshakes"


def build(package: str, target: Path | None = None, rustflags: str | None = None) -> str:
    """Builds one package in release mode and returns its program's path; elsewhere, or with flags of rustc's, where that is
    asked for. cargo's messages go to stderr."""
    environment = dict(os.environ)
    if target:
        environment["CARGO_TARGET_DIR"] = str(target)
    if rustflags:
        environment["RUSTFLAGS"] = " ".join(filter(None, [os.environ.get("RUSTFLAGS"), rustflags]))
    return _build(package, ["--package", package], environment)


@functools.cache
def handshakes() -> str:
    """Builds the load tool for handshakes, below the same target directory, where what it has in common with ringgate may be
    compiled already."""
    manifest = REPOSITORY / "loadtest" / "handshakes" / "Cargo.toml"
    return _build(HANDSHAKES, ["--manifest-path", str(manifest)], {**os.environ, "CARGO_TARGET_DIR": str(TARGET)})


def _build(package: str, where: list[str], environment: dict[str, str]) -> str:
    command = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", *where]
    command += ["--bin", package, "--message-format", "json-render-diagnostics"]
    try:
        result = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"{package} does not build: {error}") from None
    for message in map(json.loads, result.stdout.splitlines()):
        if message.get("target", {}).get("name") == package and message.get("executable"):
            return str(message["executable"])
    raise Failure(f"cargo does not say where {package} is")
