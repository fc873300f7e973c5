"""Certificates, and what clients offer and proxies agree on, with OpenSSL's own server in the place of a proxy."""

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

from lib import processes, proxies, scenarios, tls, tools, workloads
from lib.processes import Failure

HAS_OPENSSL = shutil.which("openssl") is not None


@contextlib.contextmanager
def made() -> Iterator[tls.Credentials]:
    with tempfile.TemporaryDirectory() as directory:
        yield tls.credentials(Path(directory))


@contextlib.contextmanager
def server(certificate: Path, key: Path, log: Path) -> Iterator[int]:
    """`openssl s_server`, which tells what clients offer. Yields its port once that is bound."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(certificate), "-key", str(key)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"^ACCEPT 127\.0\.0\.1:(\d+)", log.read_text(), re.MULTILINE)):
            if process.poll() is not None:
                raise Failure(log.read_text())
            time.sleep(processes.POLL_SECONDS)
        yield int(found[1])
    finally:
        process.kill()
        process.communicate()


@unittest.skipUnless(HAS_OPENSSL, "openssl is not installed")
class Credentials(unittest.TestCase):
    def test_clients_agree_on_what_is_wanted(self) -> None:
        with made() as ours, server(ours.certificate, ours.key, ours.client.with_name("log")) as port:
            self.assertEqual(tls.agreed(port, ours), tls.WANTED)

    def test_another_authority_is_not_trusted(self) -> None:
        with made() as ours, made() as others, server(others.certificate, others.key, ours.client.with_name("log")) as port:
            with self.assertRaisesRegex(Failure, "verify"):
                tls.agreed(port, ours)

    def test_only_their_owner_reads_keys(self) -> None:
        with made() as ours:
            self.assertEqual([path.stat().st_mode & 0o777 for path in (ours.key, ours.pair)], [0o600] * 2)

    @unittest.skipUnless(tools.has("wrk"), "wrk is not installed")
    def test_wrk_offers_nothing_else(self) -> None:
        with made() as ours:
            log = ours.client.with_name("log")
            with server(ours.certificate, ours.key, log) as port:
                # Nothing answers; it is the handshake that counts.
                command = ["wrk", "--threads", "1", "--connections", "1", "--duration", "1s", f"https://127.0.0.1:{port}/"]
                subprocess.run(command, env=ours.environment(), capture_output=True, check=True)
            said = log.read_text()
        self.assertRegex(said, rf"(?m)^Shared ciphers:{tls.CIPHER}$")
        self.assertRegex(said, rf"(?mi)^Supported groups: {tls.GROUP}$")


class Agreed(unittest.TestCase):
    def test_what_openssl_says(self) -> None:
        said = "Protocol version: TLSv1.3\nCiphersuite: TLS_AES_128_GCM_SHA256\nVerification: OK\n"
        for line in ("Server Temp Key: X25519, 253 bits\n", "Negotiated TLS1.3 group: X25519\n"):
            self.assertEqual(tls._agreed(said + line), tls.WANTED)
        self.assertEqual(tls._agreed(said).group, "unknown")


class Handshakes(unittest.TestCase):
    def wrong(self, workload: str, **counts: int) -> dict[str, int]:
        report = {"requests": sum(counts.values()), "full": 0, "resumed": 0, "retried": 0} | counts
        report |= {"cipher": tls.CIPHER, "group": tls.GROUP}
        return tools._wrong_handshakes(report, workloads.ALL[workload])

    def test_full_ones_are_not_resumed(self) -> None:
        self.assertEqual(self.wrong("tls-full", full=100), {})
        self.assertEqual(self.wrong("tls-full", full=99, resumed=1), {"resumed": 1})

    def test_most_are_resumed(self) -> None:
        self.assertEqual(self.wrong("tls-resume", full=5, resumed=95), {})
        self.assertEqual(self.wrong("tls-resume", full=6, resumed=94), {"not resumed": 6})

    def test_none_is_tried_twice(self) -> None:
        self.assertEqual(self.wrong("tls-full", full=99, retried=1), {"hello retry": 1})

    def test_another_cipher_is_an_error(self) -> None:
        report = {"requests": 3, "full": 3, "resumed": 0, "retried": 0, "cipher": "another", "group": tls.GROUP}
        found = tools._wrong_handshakes(report, workloads.ALL["tls-full"])
        self.assertEqual(found, {"another cipher or group": 3})


class Configurations(unittest.TestCase):
    def test_each_says_what_is_different_with_tls(self) -> None:
        for kind in proxies.KINDS.values():
            added = [line for line in proxies.difference(kind, kind.tls).splitlines() if line.startswith("+")]
            self.assertEqual(bool(added), bool(kind.tls), kind.name)

    def test_scenarios_have_those_that_speak_tls(self) -> None:
        for scenario in scenarios.chosen(["tls"], list(proxies.KINDS)):
            for contestant in scenario.contestants:
                self.assertTrue(contestant.setup.tls)
                self.assertTrue(proxies.KINDS[contestant.kind].tls, contestant.kind)


if __name__ == "__main__":
    unittest.main()
