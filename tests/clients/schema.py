"""A JSON Schema validator: schema.py SCHEMA FILE... The schema is one, the files satisfy it, and faults do not."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

GOOD = """
[[listener]]
name = "public"
address = "127.0.0.1:0"
[[cluster]]
name = "users"
endpoints = [{ address = "127.0.0.1:9000", weight = 3 }]
[[route]]
name = "user"
match = { path = "/users/{id}", header = { x-beta = { present = true } } }
cluster = "users"
"""

# Each makes the good file a bad one.
FAULTS = {
    "an unknown key": ('address = "127.0.0.1:0"', 'adress = "127.0.0.1:0"'),
    "an unknown key at the top": ("[[listener]]", "[[listner]]"),
    "a text for a number": ("weight = 3", 'weight = "3"'),
    "a negative weight": ("weight = 3", "weight = -1"),
    "no name": ('name = "public"', ""),
    "a number for a text": ('name = "users"', "name = 1"),
    "an unknown balance": ('name = "users"', 'name = "users"\nbalance = "fair"'),
    "a bad duration": ('cluster = "users"', 'cluster = "users"\ntimeout = "5 parsecs"'),
    "a bad size": ('cluster = "users"', 'cluster = "users"\nbody_bytes = "5 XB"'),
    "an unknown value match": ("{ present = true }", "{ absent = true }"),
    "too many workers' ring entries": ("[[listener]]", "[runtime]\nring_entries = 1\n[[listener]]"),
}


def main(schema_file: str, *files: str) -> None:
    schema: Any = json.loads(Path(schema_file).read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema", schema["$schema"]
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for file in files:
        for error in validator.iter_errors(tomllib.loads(Path(file).read_text())):
            raise AssertionError(f"{file}: {error.json_path}: {error.message}")
    assert validator.is_valid(tomllib.loads(GOOD))
    for name, (old, new) in FAULTS.items():
        assert GOOD.count(old) >= 1, name
        assert not validator.is_valid(tomllib.loads(GOOD.replace(old, new))), f"{name} passes"


main(*sys.argv[1:])
