"""What h2load says, what proxies are configured with, and requests by HTTP/2 to the upstream that speaks it."""

import shutil
import tempfile
import unittest
from pathlib import Path

from lib import checks, http2, processes, proxies, scenarios, tools, workloads
from lib.processes import Failure

REPORT = """\
finished in 1.00s, {succeeded}.00 req/s, 1.39MB/s
requests: {total} total, {total} started, {total} done, {succeeded} succeeded, {failed} failed, {failed} errored, 0 timeout
status codes: {found} 2xx, 0 3xx, 0 4xx, {broken} 5xx
"""

HAS_TOOLS = shutil.which("nghttpd", path="/usr/local/sbin:/usr/sbin:/sbin") is not None and shutil.which("curl") is not None


class Reports(unittest.TestCase):
    def outcome(self, **counts: int) -> tools.Outcome:
        given = {"total": 10, "succeeded": 10, "failed": 0, "found": 10, "broken": 0} | counts
        return tools._h2load_outcome(REPORT.format(**given), 2)

    def test_a_clean_run(self) -> None:
        found = self.outcome()
        self.assertEqual((found.requests, found.requests_per_second, found.errors), (10, 5.0, {}))

    def test_failures_are_errors(self) -> None:
        self.assertEqual(self.outcome(succeeded=8, failed=2, found=8).errors, {"failed": 2, "errored": 2})
        self.assertEqual(self.outcome(found=9, broken=1).errors, {"status 5xx": 1})

    def test_something_else_is_no_report(self) -> None:
        with self.assertRaisesRegex(Failure, "as expected"):
            tools._h2load_outcome("Usage: h2load", 2)

    def test_other_tools_are_refused(self) -> None:
        for tool, workload in (("wrk", "h2-h2"), ("h2load", "small")):
            with self.assertRaisesRegex(Failure, "cannot make the load"):
                tools.require(tool, workloads.ALL[workload], None)


class Configurations(unittest.TestCase):
    def test_each_says_what_is_different(self) -> None:
        for kind in proxies.KINDS.values():
            for edits in (kind.http2, kind.http2_upstream):
                added = [line for line in proxies.difference(kind, edits).splitlines() if line.startswith("+")]
                self.assertEqual(bool(added), bool(edits), kind.name)

    def test_scenarios_have_those_that_can(self) -> None:
        chosen = {it.name: it for it in scenarios.chosen(["h2"], list(proxies.KINDS))}
        self.assertEqual(list(chosen), ["h2-small-1x100", "h2-small-16x16", "h2-h2"])
        for scenario in chosen.values():
            self.assertEqual(scenario.tool, "h2load")
            for contestant in scenario.contestants:
                kind = proxies.KINDS[contestant.kind]
                self.assertTrue(contestant.setup.http2 and kind.http2)
                self.assertTrue(kind.http2_upstream or not contestant.setup.http2_upstream)
        self.assertNotIn("nginx", {it.kind for it in chosen["h2-h2"].contestants})

    def test_what_cannot_be_configured_is_refused(self) -> None:
        with self.assertRaisesRegex(Failure, "HTTP/2 to the upstream"):
            proxies._edits(proxies.KINDS["nginx"], proxies.Setup(http2=True, http2_upstream=True))


@unittest.skipUnless(HAS_TOOLS, "nghttpd or curl is not installed")
class Upstream(unittest.TestCase):
    def test_it_answers(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            service, port = http2.start_upstream(0, Path(directory))
            try:
                answer = http2.ask(port, "GET", "/", {"X-Some": "field"}, b"")
                self.assertEqual((answer.status, answer.body), (200, http2.BODY))
                self.assertEqual(answer.fields["content-length"], "100")
                workload = workloads.ALL["h2-h2"]
                self.assertEqual(checks._ask(port, workload, 2, is_http2=True)[1].body, http2.BODY)
                self.assertFalse(http2.answers(processes.free_port()))
            finally:
                service.stop()


if __name__ == "__main__":
    unittest.main()
