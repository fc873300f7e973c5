"""`python3 -m unittest discover -s loadtest -t loadtest`: verdicts from made-up blocks, and what counters print."""

import unittest
from typing import Any

from lib import callgrind, figures, gate, syscalls


def scenario(**cpu: list[float]) -> dict[str, Any]:
    """`a` is the subject, `again` the subject once more."""
    contestants = {name: {"blocks": [{"cpu_us_per_request": value} for value in its]} for name, its in cpu.items()}
    return {"contestants": contestants, "noise_pair": ["a", "again"]}


def verdict(**cpu: list[float]) -> str:
    found = figures.compare(scenario(**cpu), "a", "b", "cpu")
    assert found
    return found.verdict


class Verdicts(unittest.TestCase):
    def test_the_cheaper_one_wins(self) -> None:
        self.assertEqual(verdict(a=[10, 10, 10], b=[13, 13, 13], again=[10, 10.2, 9.9]), "a")
        self.assertEqual(verdict(a=[13, 13, 13], b=[10, 10, 10], again=[13, 13.2, 12.9]), "b")

    def test_nobody_wins_within_the_noise(self) -> None:
        self.assertTrue(verdict(a=[10, 10, 10], b=[11, 11, 11], again=[12, 8, 10]).startswith("within the noise"))

    def test_nobody_wins_by_less_than_the_least_noise(self) -> None:
        self.assertTrue(verdict(a=[10, 10], b=[10.05, 10.05], again=[10, 10]).startswith("within the noise"))

    def test_nobody_wins_when_blocks_disagree(self) -> None:
        self.assertTrue(verdict(a=[10, 10, 12], b=[11, 11, 11], again=[10, 10, 12]).startswith("undecided"))

    def test_nobody_wins_without_a_noise_floor(self) -> None:
        self.assertEqual(verdict(a=[10], b=[20], again=[]), "no noise floor was measured")

    def test_one_that_has_not_run_is_not_compared(self) -> None:
        self.assertIsNone(figures.compare(scenario(a=[10], b=[], again=[10]), "a", "b", "cpu"))


class Counters(unittest.TestCase):
    def test_perf(self) -> None:
        text = "# started on …\n\n120;;raw_syscalls:sys_enter;1;100.00;;\n<not counted>;;io_uring:io_uring_submit_req;0;;\n"
        self.assertEqual(syscalls._perf_counts(text), {"syscalls": 120, "io_uring_enter": 0, "sqes": 0})

    def test_strace(self) -> None:
        text = (
            "% time     seconds  usecs/call     calls    errors syscall\n"
            "------ ----------- ----------- --------- --------- ----------------\n"
            " 90.00    0.000100          10        10           io_uring_enter\n"
            " 10.00    0.000010          10         1         1 read\n"
            "------ ----------- ----------- --------- --------- ----------------\n"
            "100.00    0.000110          10        11         1 total\n"
        )
        self.assertEqual(syscalls._strace_count(text), syscalls.Count("strace", 11, 10))

    def test_callgrind(self) -> None:
        text = (
            "fn=(1) main\n16 5\ncfn=(2) mi_malloc_aligned\ncalls=3 0 \n16 30\ncfn=(3) serve\ncalls=1 0 \n16 90\n\n"
            "fn=(2)\n10 20\ncfn=(4) _mi_malloc_generic\ncalls=1 0 \n10 10\n\n"
            "fn=(5) mi_realloc_aligned\n10 20\ncfn=(2)\ncalls=7 0 \n10 10\n\n"
            "fn=(3)\n12 1\ncfn=(5)\ncalls=2 0 \n12 5\ncfn=(2)\ncalls=4 0 \n12 5\n\ntotals: 1234\n"
        )
        self.assertEqual(callgrind.totals(text), callgrind.Totals(1234, 9))
        self.assertIsNone(callgrind.totals(text.partition("totals")[0]))


class Gate(unittest.TestCase):
    def test_a_figure_is_worse_beyond_the_tolerance(self) -> None:
        self.assertFalse(gate.Difference("small", "instructions_per_request", 102, 100).is_worse(0.03))
        self.assertTrue(gate.Difference("small", "instructions_per_request", 104, 100).is_worse(0.03))
        self.assertFalse(gate.Difference("small", "instructions_per_request", 104, None).is_worse(0.03))

    def test_no_allocation_has_a_tolerance_too(self) -> None:
        self.assertFalse(gate.Difference("small", "allocations_per_request", 0.009, 0).is_worse(0.03))
        self.assertTrue(gate.Difference("small", "allocations_per_request", 0.011, 0).is_worse(0.03))


if __name__ == "__main__":
    unittest.main()
