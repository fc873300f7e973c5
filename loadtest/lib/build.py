"""Builds what is measured, and finds where cargo put it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from .processes import Failure

REPOSITORY = Path(__file__).resolve().parent.parent.parent

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


def build(package: str, target: Path | None = None, rustflags: str | None = None) -> str:
    """Builds one package in release mode and returns its program's path; elsewhere, or with flags of rustc's, where that is
    asked for. cargo's messages go to stderr."""
    environment = dict(os.environ)
    if target:
        environment["CARGO_TARGET_DIR"] = str(target)
    if rustflags:
        environment["RUSTFLAGS"] = " ".join(filter(None, [os.environ.get("RUSTFLAGS"), rustflags]))
    command = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--package", package]
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
