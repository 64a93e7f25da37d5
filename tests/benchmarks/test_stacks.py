"""The stacks part: the depth of microwsgi's stack, and the comparison of the counts with py-spy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import stacks
from benchmarks.processes import Server, Unavailable
from microwsgi.devtools.stack import Frame
from tests.running import ROOT

pytestmark = pytest.mark.slow  # of the benchmarks, not of the package

SUBJECTS = {subject.name: subject for subject in stacks.SUBJECTS}
PY_SPY_FRAME = re.compile(r"^    (\S.*) \((.+?):\d+\)$")


def measured(name: str) -> stacks.Depth:
    try:
        return stacks.measure(SUBJECTS[name], sys.executable)
    except Unavailable as reason:
        pytest.skip(f"{name}: {reason}")


def test_five_frames_to_a_bare_application() -> None:
    depth = measured("microwsgi")
    assert len(depth.frames) == 5
    assert depth.owners() == {"stdlib": 2, "server": 2, "framework": 0, "yours": 1}
    assert (depth.frames[0].module, depth.frames[0].function) == ("threading", "Thread._bootstrap")
    assert (depth.frames[-1].module, depth.frames[-1].function) == ("benchmarks.subjects.probe_wsgi", "app")


def test_an_apps_view_is_one_frame_deeper_than_a_bare_application() -> None:
    depth = stacks.measure(SUBJECTS["microwsgi, App"], sys.executable)
    assert len(depth.frames) == 6
    assert depth.owners()["framework"] == 1
    assert [frame.function for frame in depth.traceback if frame.owner == "framework"] == ["App.__call__"]


def test_a_traceback_has_one_frame_of_the_server_before_the_application() -> None:
    depth = measured("microwsgi")
    assert [frame.owner for frame in depth.traceback] == ["server", "yours"]


def test_werkzeug_has_about_twelve_frames_and_more_lines_than_microwsgi() -> None:
    ours, theirs = measured("microwsgi"), measured("Werkzeug")
    assert 10 <= len(theirs.frames) <= 14
    assert theirs.owners()["server"] >= 3
    assert ours.lines
    assert theirs.lines
    assert ours.lines["lines"] < theirs.lines["lines"]
    assert len(ours.lines["files"]) < len(theirs.lines["files"])


@pytest.mark.parametrize("name", ["waitress", "gunicorn gthread", "Flask"])
def test_lines_are_counted_with_and_without_sys_monitoring(name: str) -> None:
    found = measured(name).lines
    assert found
    assert found["lines"] > found["calls"] > 0
    assert found["files"]
    assert found["owners"]["server"] + found["owners"]["framework"] > 0


def test_only_lines_from_the_socket_to_the_view_are_counted() -> None:
    found = measured("microwsgi").lines
    assert found
    assert found["lines"] == sum(found["owners"].values())
    assert found["owners"]["yours"] == 0
    assert "microwsgi/server/handler.py" in found["files"]
    assert not any("probe" in file for file in found["files"])
    # More lines than calls, but not those of the whole process.
    assert found["calls"] < found["lines"] < 1000


def test_file_names_contain_no_local_directories() -> None:
    for name in ("microwsgi", "Werkzeug"):
        assert not [frame for frame in measured(name).frames if frame.file.startswith("/")]
    frame = Frame("m", "f", "/usr/lib/python3.13/site-packages/flask/app.py", 1, "framework")
    assert stacks.without_local_paths(frame).file == "flask/app.py"
    assert (
        stacks.without_local_paths(frame._replace(file="/usr/lib/python3.13/http/server.py")).file == "http/server.py"
    )
    assert stacks.without_local_paths(frame._replace(file=f"{ROOT}/microwsgi/cli.py")).file == "microwsgi/cli.py"


@pytest.mark.parametrize("name", ["microwsgi", "Werkzeug", "httpsrv.py on HTTPServer", "Flask"])
def test_the_frames_agree_with_py_spy(name: str) -> None:
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if not program:
        pytest.skip("py-spy is not installed")
    subject, counted = SUBJECTS[name], measured(name)
    with Server(subject.command(sys.executable)) as server:
        thread = threading.Thread(target=stacks.get, args=(server.port, "/sleep"))
        thread.start()
        seen = sleeping_frames(program, server.pid)
        thread.join()
    # The innermost frame is that of the probe, which sleeps.
    assert seen[0][0] == "respond"
    ours = [(frame.function.rpartition(".")[2], Path(frame.file).name) for frame in reversed(counted.frames)]
    assert [(function.rpartition(".")[2], Path(file).name) for function, file in seen[1:]] == ours


def sleeping_frames(program: str, pid: int) -> list[tuple[str, str]]:
    """Run py-spy until a thread sleeps in the probe, and return the frames of that thread, innermost first."""
    for _ in range(20):
        dump = subprocess.run([program, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False)
        if dump.returncode:
            if "ermission" in dump.stderr:
                pytest.skip("py-spy may not look into processes here")
            continue
        for thread in re.split(r"^Thread ", dump.stdout, flags=re.MULTILINE):
            frames = [found.groups() for line in thread.splitlines() if (found := PY_SPY_FRAME.match(line))]
            if any(function == "respond" for function, _ in frames):
                return [(str(function), str(file)) for function, file in frames]
    pytest.fail("no thread slept in the probe")
