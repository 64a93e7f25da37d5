"""tests/readme_commands.py: the commands are those that the README prints, and one that does not work is a failure."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from tests.readme_commands import Commands, Dialogue, Runner, commands
from tests.running import ROOT, environment

pytestmark = pytest.mark.slow  # runs the commands of the documentation

PAGE = """\
`make this` and `microwsgi check`, `microwsgi stack hello:app`, `make`, `pip install PATH`, `make it ARGS=x`,
`python -m module`, `python -m module x`, `make NAME`
```sh
make one    # a comment
. .venv/bin/activate

microwsgi serve 'a#b'  # another
```
Then `. here` and `make this`.
```sh
last
```
```python
`make nothing`
```
```console
$ microwsgi serve hello:app
$ curl http://127.0.0.1:8000/
Hello!
```
```
no command
```
"""
SERVER = """\
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1]))
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"  http://127.0.0.1:{server.server_port}/", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    if sys.argv[2:]:
        raise
"""


def test_the_commands_are_those_of_the_page() -> None:
    assert commands(PAGE) == Commands(
        ["make one", ". .venv/bin/activate", "microwsgi serve 'a#b'", ". here", "last"],
        [[Dialogue("microwsgi serve hello:app", ""), Dialogue("curl http://127.0.0.1:8000/", "Hello!\n")]],
        [
            "make this",
            "microwsgi check --help",
            "microwsgi stack hello:app",
            "make it ARGS=x",
            "python -m module --help",
            "python -m module x",
        ],
    )


def test_the_readme_has_commands_of_each_kind() -> None:
    found = commands((ROOT / "README.md").read_text())
    assert {"make serve", "make test"} <= {*found.blocks}
    assert found.dialogues
    assert found.inline


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "sourced").write_text("VARIABLE=3\n")
    runner = Runner(tmp_path, tmp_path)
    runner.variables = environment(PYTHONUNBUFFERED="1")
    return runner


@pytest.mark.parametrize(
    ("lines", "failures"),
    [
        (["true"], []),
        (["false"], ["false"]),
        (["no-such-program"], ["no-such-program"]),
        ([". ./sourced", "exit $((VARIABLE - 3))"], []),
        (["{python} server.py 200"], []),
        (["{python} server.py 404"], []),
        (["{python} server.py 500"], ["{python} server.py 500"]),
        (["{python} server.py 200 traceback"], ["{python} server.py 200 traceback"]),
    ],
)
def test_a_command_that_does_not_work_is_a_failure(runner: Runner, lines: list[str], failures: list[str]) -> None:
    for line in lines:
        runner.run(line.format(python=sys.executable))
    gc.collect()  # the warning about a socket that was left open is an error of this test, not of a later one
    assert runner.failures == [line.format(python=sys.executable) for line in failures]


@pytest.mark.parametrize(("shown", "failures"), [("a\n", []), ("b\n", ["echo a"])])
def test_the_output_of_a_dialogue_is_compared(runner: Runner, shown: str, failures: list[str]) -> None:
    runner.converse([Dialogue(f"{sys.executable} server.py 200", ""), Dialogue("echo a", shown)])
    assert runner.failures == failures
