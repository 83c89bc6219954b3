"""Finding Java, and fetching Kafka's jars so that a half-filled folder is never taken for a whole one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kafetrain.testing import BrokerNotReadyError
from kafetrain.testing.distribution import cache_folder, fetch_jars, find_java, java_version

KAFKA_JAR = "kafka_2.13-4.1.0.jar"

# A program called mvn: it knows where the jars go, and does what the test appends.
FAKE_MAVEN = """\
#!{python}
import pathlib, sys
assert "kafka_2.13" in pathlib.Path("pom.xml").read_text()
libs = pathlib.Path(next(a for a in sys.argv if a.startswith("-DoutputDirectory=")).split("=")[1])
home = pathlib.Path({home!r})
libs.mkdir(parents=True)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def write_maven(programs: Path, cache: Path, then: str) -> None:
    text = FAKE_MAVEN.format(python=sys.executable, home=str(cache / "kafka-4.1.0"))
    write_program(programs / "mvn", text + then)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\njava version "21" 2023-09-19 LTS', 21),
        ('java version "1.8.0_392"', 8),
        ("no java here", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_prints(text: str, version: int | None) -> None:
    assert java_version(text) == version


def test_an_old_java_is_refused_with_the_version_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "java", "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    with pytest.raises(BrokerNotReadyError, match=r"is Java 11, and Kafka 4\.1\.0 needs 17"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_no_java_at_all_is_said_so(programs: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match="no java on the path"):
        find_java({})


def test_a_java_home_without_java_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match="-version failed"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_the_nearest_setting_decides_where_jars_are_kept() -> None:
    assert cache_folder({"KAFETRAIN_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/kafetrain")
    assert cache_folder({}) == Path.home() / ".cache" / "kafetrain"


def test_jars_are_fetched_once(programs: Path, cache: Path) -> None:
    write_maven(programs, cache, f"(libs / {KAFKA_JAR!r}).touch()")
    libs = fetch_jars(cache)
    assert [path.name for path in libs.iterdir()] == [KAFKA_JAR]
    (programs / "mvn").unlink()
    assert fetch_jars(cache) == libs


def test_without_maven_the_error_says_so(programs: Path, cache: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match="no mvn on the path"):
        fetch_jars(cache)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (f"(libs / {KAFKA_JAR!r}).touch(); sys.exit('[ERROR] connection reset')", "connection reset"),
        ("", "fetched no Kafka"),
    ],
)
def test_a_failed_fetch_leaves_nothing_behind(programs: Path, cache: Path, then: str, message: str) -> None:
    write_maven(programs, cache, then)
    with pytest.raises(BrokerNotReadyError, match=message):
        fetch_jars(cache)
    assert list(cache.iterdir()) == []


def test_of_two_that_fetch_at_once_the_second_uses_the_jars_of_the_first(programs: Path, cache: Path) -> None:
    other = f"(home / 'libs').mkdir(parents=True); (home / 'libs' / {KAFKA_JAR!r}).write_text('first')"
    write_maven(programs, cache, f"(libs / {KAFKA_JAR!r}).write_text('second'); {other}")
    libs = fetch_jars(cache)
    assert (libs / KAFKA_JAR).read_text() == "first"
    assert [path.name for path in cache.iterdir()] == ["kafka-4.1.0"]
