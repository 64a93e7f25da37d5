"""What changed on disk: the same answers from inotify and from looking again and again."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microwsgi.prefork import watch as module
from microwsgi.prefork.file_events import Inotify, Polling
from microwsgi.prefork.watch import Watch, digest
from tests.running import LIMIT

Make = Callable[..., Watch]


@pytest.fixture(params=["inotify", "polling"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a Watch of files in tmp_path, which are made as well."""
    if request.param == "inotify" and sys.platform != "linux":
        pytest.skip("only Linux has inotify")
    made: list[Watch] = []

    def make(*names: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Watch:
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"# {name}\n")
        watch = Watch(str(tmp_path), include, exclude, polling=request.param == "polling")
        assert isinstance(watch.notifier, Polling) == (request.param == "polling")
        watch.watch_only([str(tmp_path / name) for name in names if name.endswith(".py")], [str(tmp_path)])
        made.append(watch)
        assert changes(watch) == []
        return watch

    yield make
    for watch in made:
        watch.close()


def changes(watch: Watch, *expected: str, limit: float = LIMIT) -> list[str]:
    """What has changed until all of these have, relative to the folder; AssertionError if more has."""
    end = time.monotonic() + limit
    found: set[str] = set()
    while True:
        found |= {os.path.relpath(path, watch.folder) for path in watch.check()}
        if not found ^ set(expected):
            return sorted(found)
        assert found <= set(expected), f"{found} is more than {expected}"
        assert time.monotonic() < end, f"{found} of {expected}"
        time.sleep(0.001)


def test_a_change_is_told_once(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "b.py")
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")
    (tmp_path / "b.py").write_text("# other\n")
    assert changes(watch, "b.py")


def test_a_change_of_the_same_size_within_the_same_second_is_one(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    status = (tmp_path / "a.py").stat()
    for number in range(5):
        (tmp_path / "a.py").write_text(f"# a.p{number}\n")
        os.utime(tmp_path / "a.py", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert changes(watch, "a.py")


def test_what_was_touched_or_written_with_what_it_had_has_not_changed(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "b.py")
    (tmp_path / "a.py").touch()
    (tmp_path / "a.py").write_text("# a.py\n")
    os.utime(tmp_path / "a.py", (1, 1))
    (tmp_path / "b.py").write_text("# other\n")
    assert changes(watch, "b.py") == ["b.py"]


def test_an_older_file_in_its_place_is_a_change(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "old").write_text("# older\n")
    os.utime(tmp_path / "old", (1, 1))
    (tmp_path / "old").rename(tmp_path / "a.py")
    assert changes(watch, "a.py")


def test_a_file_that_goes_has_changed_and_one_that_comes_back_too(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "a.py").unlink()
    assert changes(watch, "a.py")
    (tmp_path / "a.py").write_text("# a.py\n")
    assert changes(watch, "a.py")


def test_a_save_that_moves_the_old_file_away_is_one_change(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "a.py").rename(tmp_path / "a.py~")
    assert watch.check() == [], "it may come back"
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")


def test_a_python_file_that_comes_is_told_and_others_are_not(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "note.txt").write_text("not Python\n")
    (tmp_path / "new.py").write_text("VALUE = 1\n")
    assert changes(watch, "new.py")
    (tmp_path / "new.py").write_text("VALUE = 2\n")  # nobody imports it
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")


def test_a_package_that_comes_is_told_also_when_its_file_is_late(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "late").mkdir()
    assert changes(watch) == []
    (tmp_path / "late" / "__init__.py").write_text("")
    assert changes(watch, "late/__init__.py")
    whole = tmp_path / ".whole"
    (whole / "sub").mkdir(parents=True)
    for name in ("__init__.py", "sub/__init__.py", "sub/deep.py"):
        (whole / name).write_text("")
    whole.rename(tmp_path / "whole")
    assert changes(watch, "whole/__init__.py", "whole/sub/__init__.py", "whole/sub/deep.py")


def test_a_folder_that_goes_and_comes_back_is_watched_again(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "package/__init__.py")
    shutil.rmtree(tmp_path / "package")
    assert changes(watch, "package/__init__.py")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("# again\n")
    assert changes(watch, "package/__init__.py")
    (tmp_path / "package" / "__init__.py").write_text("# and again\n")
    assert changes(watch, "package/__init__.py")


def test_a_folder_that_is_renamed_takes_its_files_away(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "package/__init__.py")
    (tmp_path / "package").rename(tmp_path / "other")
    assert changes(watch, "package/__init__.py", "other/__init__.py")


def test_a_link_is_as_what_it_leads_to(make: Make, tmp_path: Path) -> None:
    (tmp_path / ".elsewhere").mkdir()
    target = tmp_path / ".elsewhere" / "real.py"
    target.write_text("# real\n")
    (tmp_path / "link.py").symlink_to(target)
    watch = make("a.py")
    watch.watch_only([str(tmp_path / "link.py")], [str(tmp_path)])
    assert changes(watch) == []
    target.write_text("# other\n")
    assert changes(watch, "link.py")
    (tmp_path / ".elsewhere" / "second.txt").write_text("# second\n")
    (tmp_path / "new").symlink_to(tmp_path / ".elsewhere" / "second.txt")
    (tmp_path / "new").rename(tmp_path / "link.py")
    assert changes(watch, "link.py")


def test_included_files_count_and_new_ones_too(make: Make, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "one.html").write_text("one")
    watch = make("a.py", include=("pages/**/*.html", "*.toml"))
    (tmp_path / "pages" / "one.html").write_text("other")
    assert changes(watch, "pages/one.html")
    (tmp_path / "pages" / "deep").mkdir()
    assert changes(watch) == []
    (tmp_path / "pages" / "deep" / "two.html").write_text("two")
    assert changes(watch, "pages/deep/two.html")
    (tmp_path / "pages" / "deep" / "two.html").write_text("other")
    assert changes(watch, "pages/deep/two.html")
    (tmp_path / "settings.toml").write_text("")
    assert changes(watch, "settings.toml")
    watch.watch_only([str(tmp_path / "a.py")], [])
    (tmp_path / "settings.toml").unlink()
    assert changes(watch, "settings.toml")


def test_excluded_ones_do_not_count(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "data.py", "made/by.py", exclude=("data.py", "made"))
    for name in ("data.py", "made/by.py", "made/new.py"):
        (tmp_path / name).write_text("# other\n")
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")


def test_a_path_excludes_what_is_below_it(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "made/by.py", "made/hand.py", exclude=("made/by*",))
    (tmp_path / "made" / "by.py").write_text("# other\n")
    (tmp_path / "made" / "hand.py").write_text("# other\n")
    assert changes(watch, "made/hand.py")
    assert watch.excluded(str(tmp_path / "made" / "bytes" / "deep.py"))
    assert not watch.excluded(str(tmp_path / "other" / "bytes.py"))


def test_a_look_is_due_from_the_beginning_if_only_time_tells(make: Make, tmp_path: Path) -> None:
    watch = Watch(str(tmp_path), polling=True)
    assert watch.next_check < time.monotonic() + 1
    watch.close()
    assert isinstance(make().notifier, Polling) == (make().next_check < time.monotonic() + 1)


def test_folders_that_are_wanted_no_more_are_not_waited_for(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "package/__init__.py")
    shutil.rmtree(tmp_path / "package")
    assert changes(watch, "package/__init__.py")
    assert watch.absent
    watch.watch_only([str(tmp_path / "a.py")], [str(tmp_path)])
    assert not watch.absent


def test_where_the_system_watches_no_more_folders_they_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: Inotify, name: str, *arguments: object) -> int:
        if name == "inotify_add_watch":
            ctypes.set_errno(errno.ENOSPC)
            raise OSError(errno.ENOSPC, "as many as fs.inotify.max_user_watches")
        return 1000  # a descriptor that is none

    if sys.platform != "linux":
        pytest.skip("only Linux has inotify")
    monkeypatch.setattr(Inotify, "call", call)
    monkeypatch.setattr(Inotify, "events", lambda self: b"")
    (tmp_path / "a.py").write_text("# a.py\n")
    told: list[str] = []
    watch = Watch(str(tmp_path), on_fallback=told.append)
    watch.watch_only([str(tmp_path / "a.py")], [])
    assert changes(watch) == []
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")
    assert watch.next_check < time.monotonic() + 1
    assert told == ["the limit fs.inotify.max_user_watches is reached"]


def test_where_the_system_has_no_inotify_left_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: Inotify, name: str, *arguments: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Inotify, "call", call)
    monkeypatch.setattr(sys, "platform", "linux")
    told: list[str] = []
    watch = Watch(str(tmp_path), on_fallback=told.append)
    assert isinstance(watch.notifier, Polling)
    assert told == ["inotify is not available: Too many open files"]


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of a user who must not read everything: whom the tests run as, or, where that is root, nobody."""
    with tempfile.TemporaryDirectory(prefix="microwsgi-watch-") as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("polling", [False, True])
def test_a_file_that_can_be_read_again_is_noticed(nobody: Path, polling: bool) -> None:
    """As an editor of root's may leave it for a moment, or until somebody notices."""
    path = nobody / "a.py"
    path.write_text("# a.py\n")
    watch = Watch(str(nobody), polling=polling)
    watch.watch_only([str(path)], [str(nobody)])
    assert changes(watch) == []
    path.chmod(0)
    assert changes(watch, "a.py")
    path.chmod(0o644)
    assert changes(watch, "a.py")
    watch.close()


def test_a_link_to_a_folder_that_leads_elsewhere_is_noticed(make: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(f"# {name}\n")
    (tmp_path / "now").symlink_to(tmp_path / "one")
    watch = make()
    watch.watch_only([str(tmp_path / "now" / "a.py"), str(tmp_path / "one" / "a.py")], [str(tmp_path)])
    assert changes(watch) == []
    (tmp_path / "next").symlink_to(tmp_path / "two")
    (tmp_path / "next").rename(tmp_path / "now")
    assert changes(watch, "now/a.py")
    (tmp_path / "two" / "a.new").write_text("# three\n")
    (tmp_path / "two" / "a.new").rename(tmp_path / "two" / "a.py")
    assert changes(watch, "now/a.py")
    (tmp_path / "one" / "a.new").write_text("# four\n")
    (tmp_path / "one" / "a.new").rename(tmp_path / "one" / "a.py")
    assert changes(watch, "one/a.py"), "the folder that was linked is still watched by its own name"


@pytest.mark.parametrize("swapped", ["..data", "current"])
def test_a_link_above_a_file_that_leads_elsewhere_is_noticed(make: Make, tmp_path: Path, swapped: str) -> None:
    """Kubernetes swaps ..data, to which each file of a volume is a link; deployments swap `current` for `releases/2`."""
    for name in ("one", "two"):
        (tmp_path / "versions" / name).mkdir(parents=True)
        (tmp_path / "versions" / name / "a.py").write_text(f"# {name}\n")
    (tmp_path / swapped).symlink_to("versions/one")
    path = tmp_path / swapped / "a.py"
    if swapped == "..data":
        path = tmp_path / "a.py"
        path.symlink_to("..data/a.py")
    watch = make()
    watch.watch_only([str(path)], [str(path.parent)])
    assert changes(watch) == []
    for name in ("two", "one", "two"):
        (tmp_path / "next").symlink_to(f"versions/{name}")
        (tmp_path / "next").rename(tmp_path / swapped)
        assert changes(watch, os.path.relpath(path, tmp_path))
    (tmp_path / "versions" / "two" / "a.py").write_text("# three\n")
    assert changes(watch, os.path.relpath(path, tmp_path))


EDITORS = [
    ".#app.py",
    "#app.py#",
    "app.py~",
    ".app.py.swp",
    "4913",
    ".goutputstream-X1",
    "app.py.tmp",
    "app.py.orig",
    "app.py___jb_tmp___",
    "flycheck_app.py",
    "app_flymake.py",
    ".app.py.un~",
]


def test_files_of_editors_are_no_changes(make: Make, tmp_path: Path) -> None:
    watch = make("app.py")
    for name in EDITORS:
        if name == ".#app.py":
            (tmp_path / name).symlink_to("me@host.123:456")  # the lock of Emacs leads nowhere
        else:
            (tmp_path / name).write_text("# app.py, half typed\n")
        assert changes(watch) == [], name
        (tmp_path / name).unlink()
        assert changes(watch) == [], name
    (tmp_path / "app.py").write_text("# other\n")
    assert changes(watch, "app.py")


def test_a_file_that_was_imported_counts_whatever_its_name(make: Make, tmp_path: Path) -> None:
    watch = make("flycheck_app.py")
    (tmp_path / "flycheck_app.py").write_text("# other\n")
    assert changes(watch, "flycheck_app.py")


def test_a_file_that_can_not_be_read_for_want_of_descriptors_has_not_changed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = make("a.py", "b.py")

    def opened(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "open", opened, raising=False)
    (tmp_path / "a.py").touch()
    (tmp_path / "b.py").write_text("# other\n")
    assert changes(watch) == []
    assert watch.next_check < time.monotonic() + 1
    monkeypatch.delattr(module, "open")
    assert changes(watch, "b.py") == ["b.py"]


def test_what_is_watched_and_why_can_be_said(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", include=("*.html",))
    (tmp_path / "page.html").write_text("")
    assert changes(watch, "page.html")
    told = watch.describe()
    assert told["files"] == {str(tmp_path / "a.py"): "imported", str(tmp_path / "page.html"): "--reload-include"}
    assert told["folders"] == [str(tmp_path)]


def test_a_file_of_no_interest_that_comes_costs_no_search(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases make and remove a journal with each transaction."""
    watch = make("a.py", include=("**/*.html",))
    if isinstance(watch.notifier, Polling):
        return  # it looks at folders, not at names
    searches: list[int] = []
    search = watch.search
    monkeypatch.setattr(watch, "search", lambda: searches.append(1) or search())  # type: ignore[func-returns-value]
    (tmp_path / "data-journal").write_text("")
    (tmp_path / "data-journal").unlink()
    (tmp_path / "a.py").write_text("# other\n")
    assert changes(watch, "a.py")
    assert not searches
    (tmp_path / "new.html").write_text("")
    assert changes(watch, "new.html")
    assert searches


def test_what_was_read_before_it_was_watched_is_compared(make: Make, tmp_path: Path) -> None:
    watch = make("a.py")
    (tmp_path / "late.py").write_text("# late\n")
    path = str(tmp_path / "late.py")
    watch.watch_also([path])
    assert watch.differing({path: digest(b"# late\n")}) == []
    assert watch.differing({path: digest(b"# early\n")}) == [path]


def test_a_large_file_has_changed_when_it_was_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_COMPARED", 4)
    watch = make("a.py")
    os.utime(tmp_path / "a.py", (1, 1))
    (tmp_path / "a.py").write_text("# a.py\n")
    assert changes(watch, "a.py")


def test_what_is_half_written_is_not_believed(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "b.py")
    if isinstance(watch.notifier, Polling):
        return  # who only looks can't know
    with (tmp_path / "a.py").open("w") as file:
        file.write("VALUE =")
        file.flush()
        (tmp_path / "b.py").write_text("# other\n")
        watch.notifier.files.add(str(tmp_path / "a.py"))  # as if it had been moved there
        assert changes(watch, "b.py")
        file.write(" 1\n")
    assert changes(watch, "a.py")


def test_after_more_events_than_the_system_keeps_files_are_polled_and_none_is_lost(make: Make, tmp_path: Path) -> None:
    watch = make("a.py", "b.py")
    if isinstance(watch.notifier, Polling):
        return  # it has none
    told: list[str] = []
    watch.notifier.on_fallback = told.append
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [tmp_path / f"x{number}" for number in range(2)]
    for number in range(limit + 1):  # two alternate, since the same event twice in a row is kept once
        os.close(os.open(files[number % 2], os.O_CREAT | os.O_WRONLY))
    (tmp_path / "b.py").write_text("# other\n")
    (tmp_path / "new.py").write_text("# new\n")
    assert changes(watch, "b.py", "new.py")
    assert told == ["more files changed at once than fs.inotify.max_queued_events"]
    assert watch.notifier.polling is not None
    assert watch.next_check < float("inf")


def test_looking_at_thousands_of_files_takes_one_part_in_a_hundred_of_the_time(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"{number}.html").write_text("")
    watch = Watch(str(tmp_path), ("*.html",), polling=True)
    for _ in range(3):
        start, begin = time.process_time(), time.monotonic()
        watch.check()
        took = time.process_time() - start
    assert watch.next_check - begin > min(50 * took, 0.2)
    watch.close()
