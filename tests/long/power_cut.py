"""Power cuts during a conversion: what a disk holds at random moments is mounted and read.

usage: power_cut.py MOUE CORE_TESTS [CUTS]

An ext4 file system lies on a loop device over a file that this program itself serves (FUSE), so that it sees every
write and every flush in their order. A cut is the disk as it stands between two requests: either with all that was
written, or with writes since the last flush left out at random, as a disk with a cache of its own loses them. Each is
mounted, whereby the journal is replayed. Never may the final name hold anything but the complete result; once the
program has ended, it must be there; and the same command must complete what is not.

As a control the same is done with a writer that does not sync, which must be caught.

Needs root, /dev/fuse and loop devices; says so and exits with 77 where it cannot run.
"""

import ctypes
import hashlib
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 96 << 20
SKIPPED = 77
HALF = "the final name holds something else"
MODEL = Path("examples/tiny-mixtral")
GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT = 3, 4, 14, 15, 16, 18, 20, 25, 26
FORGETS = (2, 36, 42)  # requests without an answer
ENOSYS = 38


class Disk:
    """The bytes of a disk: what was written, and what is sure to stay."""

    def __init__(self):
        self.current = bytearray(SIZE)
        self.stable = bytearray(SIZE)
        self.pending = []

    def write(self, offset, data):
        self.current[offset:offset + len(data)] = data
        self.pending.append((offset, data))

    def flush(self):
        for offset, data in self.pending:
            self.stable[offset:offset + len(data)] = data
        self.pending = []

    def cut(self, loses):
        """The disk after a power cut now; `loses`: each write since the last flush is kept or not."""
        if not loses:
            return bytes(self.current)
        kept = bytearray(self.stable)
        for offset, data in self.pending:
            if random.random() < 0.5:
                kept[offset:offset + len(data)] = data
        return bytes(kept)


def answer(fuse, unique, data=b"", error=0):
    os.write(fuse, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)


def attributes():
    attr = struct.pack("<6Q10I", 1, SIZE, SIZE // 512, 0, 0, 0, 0, 0, 0, 0o100600, 1, 0, 0, 0, 4096, 0)
    return struct.pack("<QII", 3600, 0, 0) + attr


def serve(fuse, commands, disk):
    """Answers the kernel's requests, and between two of them the commands "PATH LOSES"."""
    while True:
        ready, _, _ = select.select([fuse, commands], [], [])
        if commands in ready:
            path, loses = commands.readline().split()
            Path(path).write_bytes(disk.cut(loses == "True"))
            Path(path + ".ready").touch()
        if fuse not in ready:
            continue
        try:
            request = os.read(fuse, (1 << 20) + 8192)
        except OSError:  # unmounted
            return
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        body = request[40:]
        if opcode in FORGETS:
            continue
        if opcode == INIT:
            major, minor, readahead = struct.unpack_from("<III", body)
            data = struct.pack("<IIIIHHIIHHI7I", 7, min(minor, 31), readahead, 1 << 5 | 1 << 22, 64, 48, 1 << 20, 1,
                               256, 0, 0, *[0] * 7)
            answer(fuse, unique, data)
        elif opcode in (GETATTR, SETATTR):
            answer(fuse, unique, attributes())
        elif opcode == OPEN:
            answer(fuse, unique, struct.pack("<QII", 1, 0, 0))
        elif opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            answer(fuse, unique, bytes(disk.current[offset:offset + size]))
        elif opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            disk.write(offset, body[40:40 + size])
            answer(fuse, unique, struct.pack("<II", size, 0))
        elif opcode == FSYNC:
            disk.flush()
            answer(fuse, unique)
        elif opcode in (RELEASE, FLUSH):
            answer(fuse, unique)
        else:
            answer(fuse, unique, error=ENOSYS)


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **more).stdout


class Mounted:
    """A served disk with ext4 on it, mounted at `at`."""

    def __init__(self, folder):
        self.file, self.at, self.folder = folder / "disk", folder / "mounted", folder
        self.file.touch()
        self.at.mkdir()
        self.fuse = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fuse},rootmode=100000,user_id=0,group_id=0"
        if libc.mount(b"cut", str(self.file).encode(), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount of fuse")
        reader, self.commands = os.pipe()
        self.server = os.fork()
        if self.server == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            serve(self.fuse, os.fdopen(reader, "r"), Disk())
            os._exit(0)
        self.cuts = 0
        self.loop = run("losetup", "--find", "--show", self.file).strip()
        run("mkfs.ext4", "-q", "-F", self.loop)
        run("mount", "-o", "commit=1", self.loop, self.at)

    def cut(self, loses):
        """The disk as a power cut now would leave it, as a file."""
        self.cuts += 1
        path = self.folder / f"cut-{self.cuts}"
        os.write(self.commands, f"{path} {loses}\n".encode())
        while not Path(f"{path}.ready").exists():
            time.sleep(0.002)
        Path(f"{path}.ready").unlink()
        return path

    def close(self):
        subprocess.run(["umount", str(self.at)], check=False)
        subprocess.run(["losetup", "-d", self.loop], check=False)
        subprocess.run(["umount", str(self.file)], check=False)
        os.close(self.fuse)
        os.waitpid(self.server, 0)


def digests(directory):
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.rglob("*")}


def convert(moue, at, layout):
    """The command, with the source on the same disk so that shards can be linked."""
    return [moue, "convert", at / "source", "--out", at / "out", "--layout", layout, "--shard_size", "2MB", "--quiet"]


def look(cut, folder, moue, layout, wanted, complete):
    """What is wrong with a disk after a power cut; "" for nothing."""
    at = folder / "cut-mounted"
    at.mkdir(exist_ok=True)
    run("mount", "-o", "loop", cut, at)
    try:
        out = at / "out"
        if not out.exists() and complete:
            return "the program had ended, the result is not there"
        if out.exists() and digests(out) != wanted:
            return HALF
        if not out.exists() and (at / "source/config.json").exists():
            again = subprocess.run(convert(moue, at, layout), capture_output=True, text=True)
            if again.returncode != 0 or digests(out) != wanted:
                return "the same command did not complete it: " + again.stderr
        return ""
    finally:
        run("umount", at)
        cut.unlink()


def clear(disk):
    run("rm", "-rf", disk.at / "out", disk.at / ".out.moue-partial")
    run("sync", "-f", disk.at)


def cut_while_running(disk, moue, layout, wanted, seconds, cuts):
    """Cuts at random moments of one run, one of them right behind its end."""
    clear(disk)
    begin = time.monotonic()
    moments = sorted(random.uniform(0, seconds) for _ in range(cuts - 1))
    process = subprocess.Popen(convert(moue, disk.at, layout), stdout=subprocess.DEVNULL)
    taken = []
    for moment in moments:
        time.sleep(max(0, begin + moment - time.monotonic()))
        complete = process.poll() == 0
        taken.append((disk.cut(random.random() < 0.5), complete))
    if process.wait() != 0:
        raise RuntimeError("moue convert failed")
    taken.append((disk.cut(True), True))
    return [look(cut, disk.folder, moue, layout, wanted, complete) for cut, complete in taken]


def control(disk, moue, tests):
    """A writer that does not sync, cut in the seconds after it has ended."""
    clear(disk)
    places = dict(os.environ, MOUE_TEST_FROM=str(disk.at / "source"), MOUE_TEST_TO=str(disk.at / "out"))
    run(tests, "convert without syncs", env=places)
    wanted, wrong = digests(disk.at / "out"), []
    for _ in range(8):
        wrong.append(look(disk.cut(True), disk.folder, moue, "linked", wanted, True))
        time.sleep(0.4)
    return [fault for fault in wrong if fault]


def whole_run(disk, moue, layout):
    clear(disk)
    begin = time.monotonic()
    run(*convert(moue, disk.at, layout))
    seconds = time.monotonic() - begin
    return digests(disk.at / "out"), seconds


def main():
    moue, tests = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    cuts = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    random.seed(11)
    with tempfile.TemporaryDirectory() as name:
        try:
            disk = Mounted(Path(name))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"did not run, and did not pass: {error}; it takes root, /dev/fuse and a loop device")
            return SKIPPED
        try:
            run("cp", "-r", MODEL, disk.at / "source")
            wrong, done = [], 0
            while done < cuts:
                for layout in ("packed", "linked"):
                    wanted, seconds = whole_run(disk, moue, layout)
                    faults = cut_while_running(disk, moue, layout, wanted, 1.2 * seconds, 10)
                    wrong += [f"{layout}: {fault}" for fault in faults if fault]
                    done += len(faults)
            caught = control(disk, moue, tests)
        finally:
            disk.close()
    halves = caught.count(HALF)
    print(f"{done} power cuts, {len(wrong)} wrong; of 8 of a writer that does not sync {len(caught)} wrong, "
          f"{halves} of them under the final name")
    for fault in wrong:
        print(fault)
    return 1 if wrong or halves == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
