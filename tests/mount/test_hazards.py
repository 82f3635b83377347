"""What goes wrong with files that change and with bugs of ours (facts: fuse-performance 6)."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from attrs import define
from syscalls import answer, opened

from tdxfs.server import is_mounted, stop


@define
class Served:
    """A mount of tests/mount/hazards.py, and where its server writes."""

    root: Path
    errors: Path
    process: subprocess.Popen

    def read(self, name):
        return answer((self.root / name).read_bytes)


@pytest.fixture
def hazards(tmp_path):
    """Files that misbehave, mounted."""
    root, errors = tmp_path / "mnt", tmp_path / "errors"
    root.mkdir()
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("hazards.py"), root], stdout=subprocess.PIPE, stderr=stderr
        )
    assert process.stdout.readline() == b"ready\n", errors.read_text()
    process.stdout.close()
    os.stat(root)
    yield Served(root, errors, process)
    stop(process, root)
    assert not is_mounted(root)


class TestChangingFiles:
    def test_one_open_reads_one_snapshot(self, hazards):
        """Reads that continue see the text of the read before them; another open is another text."""
        with opened(hazards.root / "changing") as one, opened(hazards.root / "changing") as other:
            parts = [os.read(one, 7)]
            os.read(other, 4096)
            while part := os.read(one, 7):
                parts.append(part)
        text = b"".join(parts)

        assert text.endswith(b"\n")
        assert len(set(text[:-1])) == 1

    def test_reading_at_0_shows_anew(self, hazards):
        """pread(2) at 0 and a read after lseek(2) to 0 see the file as it is now, as on sysfs."""
        with opened(hazards.root / "counter") as file:
            numbers = [int(os.pread(file, 100, 0)) for _ in range(3)]
            os.lseek(file, 0, os.SEEK_SET)
            numbers.append(int(os.read(file, 100)))

        assert list(range(numbers[0], numbers[0] + 4)) == numbers

    def test_no_lost_tail(self, hazards):
        """A text that grew is read whole, without fstat(2) in between, by new and by old descriptors."""
        with opened(hazards.root / "counter") as kept:
            for _ in range(8):
                assert hazards.read("counter").endswith(b"\n")
                assert os.pread(kept, 100, 0).endswith(b"\n")

    def test_no_padding_while_others_stat(self, hazards):
        """No read has NULs at its end or a torn text, while other threads stat the file all the time."""
        path = hazards.root / "changing"
        done = threading.Event()

        def look():
            while not done.is_set():
                os.stat(path)

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            texts = [path.read_bytes() for _ in range(500)]
        finally:
            done.set()
            for thread in threads:
                thread.join()

        assert {True} == {text.endswith(b"\n") and len(set(text[:-1])) == 1 for text in texts}


class TestOurBugs:
    @pytest.mark.parametrize(
        ("name", "exception"),
        [
            ("bug", "ZeroDivisionError"),
            ("no_errno", "OSError: no errno"),
            ("leave", "SystemExit"),
            ("interrupt", "KeyboardInterrupt"),
            ("no_text", "Error"),
        ],
    )
    def test_logged_and_answered(self, hazards, name, exception):
        """Whatever our code raises, the reader gets EIO, the log a traceback, and the mount lives on."""
        assert hazards.read(name) == "EIO"

        said = hazards.errors.read_text()
        assert "Traceback" in said
        assert exception in said
        assert hazards.read("counter").strip().isdigit()
        assert hazards.process.poll() is None


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_signals(self, hazards, number):
        """A signal unmounts and ends the server with status 0; an open file is cut off."""
        with opened(hazards.root / "counter") as file:
            hazards.process.send_signal(number)
            assert hazards.process.wait(20) == 0
            assert not is_mounted(hazards.root)
            assert list(hazards.root.iterdir()) == []
            assert answer(os.pread, file, 10, 0) in ("ENOTCONN", "ECONNABORTED")
        assert hazards.errors.read_text() == ""
