"""What a program can write, read and learn: counted by the kernel, and nothing of the user's."""

from __future__ import annotations

import ast

import pytest

from prunelab.evaluation.sandbox import Sandbox

from .conftest import AsOrdinaryUser

LIMIT = 2**20
UNSEEN = {
    "removed while open": "file = os.open('f', os.O_CREAT | os.O_RDWR); os.remove('f')",
    "replaced while open": "file = os.open('new', os.O_CREAT | os.O_RDWR); os.rename('new', 'old')",
    "never named": "file = os.open('.', os.O_TMPFILE | os.O_RDWR)",
    "in memory": "file = os.memfd_create('f')",
    "named": "file = os.open(str(number), os.O_CREAT | os.O_RDWR)",
    "filled by a mapping": (
        "file = os.open(str(number), os.O_CREAT | os.O_RDWR); os.remove(str(number)); os.ftruncate(file, 2**18)\n"
        "        mmap.mmap(file, 2**18)[:] = bytes(2**18); continue"
    ),
}
WRITES = """
import mmap, os
written, kept = 0, []
try:
    for number in range(40):
        {make}
        kept.append(file)
        written += os.write(file, bytes(2**18))
except OSError as error:
    raise ValueError(written, error.errno)
raise ValueError(written, 0)
"""


def _written(detail: str) -> int:
    assert detail.startswith("ValueError: "), detail
    return int(ast.literal_eval(detail.removeprefix("ValueError: "))[0])


@pytest.mark.parametrize("how", [how for how in UNSEEN if "mapping" not in how])
def test_no_more_is_written_than_the_limit_whatever_the_files_are_called(sandbox: Sandbox, how: str) -> None:
    written = _written(sandbox.run(WRITES.replace("{make}", UNSEEN[how])).detail)
    assert written <= LIMIT
    if sandbox.isolation.own_files and how != "in memory":
        assert written >= LIMIT // 2, "what is allowed can be written"


def test_a_mapping_fills_no_more_than_the_limit(sandbox: Sandbox) -> None:
    """The kernel kills at the first page that there is no room for."""
    execution = sandbox.run(WRITES.replace("{make}", UNSEEN["filled by a mapping"]))
    assert not execution.passed
    assert execution.detail.startswith("Bus error" if sandbox.isolation.own_files else "ValueError: (0")


def test_two_programs_have_a_limit_each_and_nothing_stays(sandbox: Sandbox) -> None:
    if not sandbox.isolation.own_files:
        pytest.skip("a program writes nowhere here")
    program = f"import os\nassert os.listdir() == []\nopen('x', 'wb').write(bytes({LIMIT // 2}))"
    assert all(each.passed for each in sandbox.run_all([program] * 4))


def test_the_mount_is_seen_by_the_program_alone(sandbox: Sandbox) -> None:
    with open("/proc/self/mountinfo") as file:
        before = file.read()
    sandbox.run("open('x', 'w').write('x')")
    with open("/proc/self/mountinfo") as file:
        assert file.read() == before


READS = """
import dataclasses, os, pathlib, tempfile
from prunelab.evaluation.sandbox import Isolation, Limits
from prunelab.evaluation.sandbox.process import execute
isolation = Isolation.of_this_machine()
secret = pathlib.Path(tempfile.mkdtemp(), "token")
secret.write_text("hf_secret")
attempts = {
    "file": f"raise ValueError(open({str(secret)!r}).read())",
    "environment": "import os\\nraise ValueError(open(f'/proc/{os.getppid()}/environ').read())",
    "own environment": "import os\\nraise ValueError(dict(os.environ))",
    "memory": "import os\\nraise ValueError(open(f'/proc/{os.getppid()}/mem', 'rb').read(1))",
    "arguments": "import os\\nraise ValueError(open(f'/proc/{os.getppid()}/cmdline').read())",
    "folder": f"import os\\nraise ValueError(os.listdir({str(secret.parent)!r}))",
    "descriptors": "import os\\nraise ValueError([os.listdir(f'/proc/{os.getppid()}/fd')])",
}
for own_files in {isolation.own_files, False}:
    for name, attempt in attempts.items():
        detail = execute(attempt, Limits(), dataclasses.replace(isolation, own_files=own_files)).detail
        assert "secret" not in detail, (name, detail)
        assert name == "own environment" or detail.startswith("PermissionError"), (name, detail)
try:
    execute(attempts["file"], Limits(), dataclasses.replace(isolation, landlock_version=0))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.usefixtures("sandbox")
def test_an_ordinary_users_files_and_environment_are_out_of_reach(as_ordinary_user: AsOrdinaryUser) -> None:
    printed = as_ordinary_user(READS, HF_TOKEN="hf_secret", AWS_SECRET_ACCESS_KEY="secret")
    assert printed.startswith("MissingRequirement: ")
    assert "Landlock" in printed
    assert printed.count("\n") == 1


UNSEEN_BY_ORDINARY_USER = """
from prunelab.evaluation.sandbox import Isolation, Limits
from prunelab.evaluation.sandbox.process import execute
isolation = Isolation.of_this_machine()
for how, make in {unseen!r}.items():
    if "mapping" not in how:
        print(execute({writes!r}.replace("{{make}}", make), Limits(file_bytes=2**20), isolation).detail)
"""


@pytest.mark.usefixtures("sandbox")
def test_files_are_counted_for_an_ordinary_user(as_ordinary_user: AsOrdinaryUser) -> None:
    printed = as_ordinary_user(UNSEEN_BY_ORDINARY_USER.format(unseen=UNSEEN, writes=WRITES))
    assert [_written(line) <= LIMIT for line in printed.splitlines()] == [True] * (len(UNSEEN) - 1)
