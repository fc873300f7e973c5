"""Reads what callgrind writes: instructions, and how often the heap was asked for memory.

The allocator is a library inside of the program, which no tool that watches `malloc` sees. callgrind counts each call from
one function to another, so calls of the allocator's functions are there by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What hands out memory, in mimalloc and in the C library. One of these that calls another counts once.
ALLOCATORS = re.compile(
    r"(mi_(heap_)?(malloc|zalloc|calloc|realloc|rezalloc|recalloc)\w*|malloc|calloc|realloc|aligned_alloc|posix_memalign)$"
)

FUNCTION = re.compile(r"(c?fn)=\((\d+)\)(?: (.+))?$")
CALLS = re.compile(r"calls=(\d+)")
TOTALS = re.compile(r"totals: (\d+)")


@dataclass(frozen=True)
class Totals:
    """Of a whole run, start and end included."""

    instructions: int
    allocations: int


def totals(text: str) -> Totals | None:
    """Counts; nothing when callgrind has not come to its end.

    A function's name stands where its number is first used: `fn=(7) main`, later `fn=(7)`. `fn` is the caller of what
    follows, `cfn` the function that the next `calls=` line counts calls of.
    """
    names: dict[str, str] = {}
    caller = callee = ""
    instructions, allocations = None, 0
    for line in text.splitlines():
        if found := FUNCTION.match(line):
            kind, number, name = found.groups()
            name = names.setdefault(number, name or "")
            caller, callee = (name, callee) if kind == "fn" else (caller, name)
        elif found := CALLS.match(line):
            allocations += int(found[1]) if _allocates(callee) and not _allocates(caller) else 0
        elif found := TOTALS.match(line):
            instructions = int(found[1])
    return None if instructions is None else Totals(instructions, allocations)


def _allocates(function: str) -> bool:
    # A function that has called itself is written as `name'2`.
    return ALLOCATORS.match(function.partition("'")[0]) is not None
