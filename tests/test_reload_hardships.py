"""What applications do to their processes, and editors and tools to files: new code is served all the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.running import LIMIT, Running, python
from tests.test_supervised import eventually, fetch

pytestmark = pytest.mark.slow  # real processes, started and stopped one after another

Command = Callable[..., Running]

APPLICATION = """\
import helper

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(helper.VALUE).encode()]
"""


class Served:
    """An application of two files under `--reload`; quick to ask, quick to change."""

    def __init__(self, command: Command, folder: Path, *options: str) -> None:
        self.folder = folder
        (folder / "main.py").write_text(APPLICATION)
        self.running = command("serve", "main", "-p", "0", "--reload", "--access-log", "off", *options, cwd=folder)
        self.url = self.running.url()
        self.running.line("Ctrl-C stops")

    def save(self, text: str, name: str = "helper.py") -> None:
        (self.folder / name).write_text(text)

    def value(self) -> str:
        return fetch(self.url)[1]

    def serves(self, value: object) -> None:
        """Wait until this is answered."""
        eventually(str(value), self.value)


@pytest.fixture
def serve(command: Command, tmp_path: Path) -> Callable[..., Served]:
    """`serve(helper, options...)`: a Served, with this in helper.py."""

    def serve(helper: str = "VALUE = 1\n", *options: str) -> Served:
        (tmp_path / "helper.py").write_text(helper)
        return Served(command, tmp_path, *options)

    return serve


Serve = Callable[..., Served]

HABITS = {
    "a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n",
    "a process": "import os, time\nif not (pid := os.fork()):\n    os.closerange(0, 3); time.sleep(60); os._exit(0)\n",
    "a pool of processes": """\
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
pool = ProcessPoolExecutor(1, get_context("fork"))
pid = pool.submit(__import__("os").getpid).result()
""",
    "a pool of threads": """\
import time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
pool.submit(time.sleep, 3600)
""",
    "another folder": "import os\nos.chdir('/')\nos.umask(0o777)\n",
    "other handlers": "import signal\nfor each in (1, 2, 3, 10, 12, 15, 17): signal.signal(each, signal.SIG_IGN)\n",
    "no streams": "import sys\nsys.stdin = sys.stdout = sys.stderr = None\n",
    "closed streams": "import os\nos.closerange(0, 3)\n",
}
"""What an application has once it is imported."""


@pytest.mark.parametrize("habit", HABITS)
def test_whatever_an_application_does_at_import_it_is_replaced_and_ends(serve: Serve, habit: str) -> None:
    code = f"pid = 0\n{HABITS[habit]}import os\nVALUE = f'%d {{os.getpid()}} {{pid}}'\n"
    served = serve(code % 1)
    seen = [served.value().split()]
    for number in (2, 3):
        served.save(code % number)
        served.running.line("changed: helper.py; serving main:app")
        seen.append(served.value().split())
    assert [value for value, *_ in seen] == ["1", "2", "3"]
    eventually(["", ""], lambda: [state(pid) for _, pid, _ in seen[:2]])
    if habit == "a pool of processes":
        eventually(set(), lambda: {state(pid) for *_, pid in seen[:2]} - {"", "Z"})
    begun = time.monotonic()
    served.running.send_signal(signal.SIGINT)
    assert served.running.process.wait(LIMIT) == 0
    assert time.monotonic() - begun < 4, "it was not waited for until it was killed"
    if habit == "a process":  # which is the application's to end
        for *_, pid in seen:
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    "end",
    [
        "import sys; sys.exit('no')",
        "raise KeyboardInterrupt",
        "import os; os._exit(0)",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.abort()",
        "import os; os.closerange(3, 100)",
    ],
)
def test_whatever_ends_an_import_the_last_good_version_goes_on(serve: Serve, end: str) -> None:
    served = serve()
    served.save(f"{end}\n")
    served.running.line("The last good version is still being served")
    assert served.value() == "1"
    served.save("VALUE = 2\n")
    served.running.line("fixed: helper.py; serving main:app")
    assert served.value() == "2"


def test_a_parent_that_is_killed_takes_who_still_imports_along(serve: Serve) -> None:
    served = serve()
    served.save(
        "import os, time\nopen('pid.new', 'w').write(str(os.getpid()))\nos.rename('pid.new', 'pid')\ntime.sleep(60)\n"
    )
    eventually(True, (served.folder / "pid").exists)
    pid = (served.folder / "pid").read_text()
    served.running.send_signal(signal.SIGKILL)
    eventually(True, lambda: state(pid) in {"", "Z"})


def state(pid: str) -> str:
    """A process's state, as ps shows it; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_a_module_may_become_a_package_and_a_package_a_module(serve: Serve) -> None:
    served = serve()
    package = served.folder / "helper"
    package.mkdir()
    served.save("VALUE = 2\n", "helper/__init__.py")  # which goes before the module
    served.serves(2)
    shutil.rmtree(package)
    served.serves(1)
    (served.folder / "helper.py").unlink()
    served.running.line("The last good version is still being served")
    package.mkdir()
    served.save("VALUE = 3\n", "helper/__init__.py")
    served.serves(3)
    served.save(APPLICATION.replace("import helper", "import helper.part as helper"), "main.py")
    served.save("VALUE = 4\n", "helper/part.py")
    served.serves(4)
    (package / "__init__.py").unlink()  # a namespace package
    served.save("VALUE = 5\n", "helper/part.py")
    served.serves(5)


def test_a_folder_that_is_a_link_may_lead_elsewhere(serve: Serve) -> None:
    served = serve()
    elsewhere = served.folder / ".versions"
    for number in (2, 3):
        (elsewhere / str(number)).mkdir(parents=True)
        served.save(f"VALUE = {number}\n", f".versions/{number}/__init__.py")
    (served.folder / "helper").symlink_to(elsewhere / "2")
    served.serves(2)
    (served.folder / "next").symlink_to(elsewhere / "3")
    (served.folder / "next").rename(served.folder / "helper")
    served.serves(3)
    served.save("VALUE = 4\n", ".versions/3/__init__.py")
    served.serves(4)


def test_a_checkout_of_hundreds_of_files_fails_no_request(serve: Serve) -> None:
    count = 300
    served = serve()
    (served.folder / "package").mkdir()

    def check_out(value: int) -> None:
        """As git does it: each file is removed and made anew."""
        for number in range(count):
            (served.folder / f"package/module{number}.py").unlink(missing_ok=True)
            served.save(f"VALUE = {value}\n", f"package/module{number}.py")

    check_out(2)
    modules = f"[import_module(f'package.module{{number}}').VALUE for number in range({count})]"
    served.save(f"from importlib import import_module\nVALUE = {{*{modules}}}\n")
    served.serves({2})
    with ThreadPoolExecutor() as pool:
        done = pool.submit(check_out, 3)
        statuses, answer = set(), (0, "")
        while not done.done() or answer[1] != "{3}":
            answer = fetch(served.url)
            statuses.add(answer[0])
        done.result()
    assert statuses == {200}


def test_names_that_are_no_text_are_names(serve: Serve) -> None:
    served = serve("VALUE = 1\n", "--reload-include", "*.txt")
    folder = os.fsencode(served.folder)
    with open(folder + b"/part\xff.py", "wb") as file:
        file.write(b"VALUE = 2\n")
    served.save("import importlib, os\nVALUE = importlib.import_module(os.fsdecode(b'part\\xff')).VALUE\n")
    served.serves(2)
    served.running.line(r"changed: helper\.py.*; serving main:app")  # else the next change would be told with this one
    with open(folder + b"/part\xff.py", "wb") as file:
        file.write(b"VALUE = 3\n")
    served.running.line(r"changed: part\\udcff\.py; serving main:app")
    assert served.value() == "3"
    with open(folder + b"/note\xff.txt", "wb") as file:
        file.write(b"new")
    served.running.line(r"changed: note\\udcff\.txt; serving main:app")


def test_a_file_with_a_dot_is_watched_when_it_is_named(serve: Serve) -> None:
    served = serve(
        "VALUE = open('.env').read() if __import__('os').path.exists('.env') else 1\n", "--reload-include", ".env"
    )
    served.save("2", ".env")
    served.running.line(r"changed: \.env; serving main:app")
    assert served.value() == "2"


def test_what_was_stopped_and_goes_on_serves_what_was_saved_meanwhile(serve: Serve) -> None:
    """Ctrl-Z, and fg: all processes of the terminal."""
    served = serve()
    os.killpg(served.running.pid, signal.SIGSTOP)
    served.save("VALUE = 2\n")
    os.killpg(served.running.pid, signal.SIGCONT)
    served.serves(2)


def test_processes_that_the_application_spawns_have_the_new_code(serve: Serve, tmp_path: Path) -> None:
    helper = """\
from multiprocessing import get_context

def add(number):
    return number + {}

class Computed:
    def __str__(self):
        with get_context("spawn").Pool(1) as pool:
            return str(pool.map(add, [1])[0])

VALUE = Computed()
"""
    served = serve(helper.format(1))
    assert served.value() == "2"
    served.save(helper.format(2))  # of the same size
    served.running.line("changed: helper.py; serving main:app")
    assert served.value() == "3"
    assert not list(tmp_path.rglob("*.pyc")), "what it spawns may have written stale ones"


def test_what_is_excluded_is_not_a_change(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("VALUE = 1\n")
    served = serve("from made import VALUE\n", "--reload-exclude", "made*")
    served.save("VALUE = 2\n", "made.py")
    served.save("VALUE = 2\n", "made_too.py")
    served.save("from made import VALUE\nVALUE += 10\n")
    served.running.line(r"changed: helper\.py; serving main:app")
    assert served.value() == "12"
    assert "made" not in served.running.output


def test_a_parent_is_one_thread_that_sleeps_while_nothing_changes(serve: Serve) -> None:
    served = serve()
    served.save("VALUE = 2\n")
    served.running.line("changed: helper.py; serving main:app")
    process = Path(f"/proc/{served.running.pid}")

    def switches() -> str:
        """How often it has gone to sleep."""
        return next(line for line in (process / "status").read_text().splitlines() if line.startswith("voluntary"))

    eventually("S", lambda: state(str(served.running.pid)))
    end = time.monotonic() + LIMIT
    while True:  # the old child may still be ending, the modules of the new one being compiled
        before = switches()
        time.sleep(0.5)  # no waiting for something: while nothing happens, the parent must do nothing
        if switches() == before:
            break
        assert time.monotonic() < end, "it wakes up again and again"
    assert len(list((process / "task").iterdir())) == 1, "a fork beside a thread is not safe"


def test_a_release_that_a_link_leads_to_is_served(command: Command, tmp_path: Path) -> None:
    """As Capistrano and many scripts deploy."""
    for number in (1, 2):
        (tmp_path / "releases" / str(number)).mkdir(parents=True)
        (tmp_path / "releases" / str(number) / "main.py").write_text(APPLICATION)
        (tmp_path / "releases" / str(number) / "helper.py").write_text(f"VALUE = {number}\n")
    (tmp_path / "current").symlink_to("releases/1")
    running = command("serve", "main", "-p", "0", "--reload", "--app-dir", "current", cwd=tmp_path)
    url = running.url()
    running.line("Ctrl-C stops")
    assert fetch(url)[1] == "1"
    for name in ("2", "1"):
        (tmp_path / "next").symlink_to(f"releases/{name}")
        (tmp_path / "next").rename(tmp_path / "current")
        eventually(name, lambda: fetch(url)[1])


def test_usr2_says_what_is_watched_and_why(serve: Serve) -> None:
    served = serve()
    served.running.send_signal(signal.SIGUSR2)
    watched = json.loads(served.running.line('"watched"'))["watched"]
    assert watched["files"] == {str(served.folder / name): "imported" for name in ("main.py", "helper.py")}


def test_where_inotify_is_short_there_is_a_word_and_changes_are_served(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    (tmp_path / "program.py").write_text(
        "import errno\n"
        "from microwsgi import serve\n"
        "from microwsgi.prefork.file_events import Inotify\n"
        "def call(*words):\n    raise OSError(errno.EMFILE, 'Too many open files')\n"
        "Inotify.call = call\n"
        "serve('main:app', port=0, reload=True)\n"
    )
    running = Running(python("program.py"), cwd=tmp_path)
    try:
        running.line("as with --reload-poll: inotify is not available: Too many open files")
        url = running.url()
        eventually("1", lambda: fetch(url)[1])
        (tmp_path / "helper.py").write_text("VALUE = 2\n")
        eventually("2", lambda: fetch(url)[1])
    finally:
        running.end()
