"""Java, and Apache Kafka's jars by way of Maven, kept in a cache folder.

The folder appears under its name only when it is whole: it is filled beside it and then renamed. So two processes
may fetch at once, and one that is interrupted leaves nothing that looks finished.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kafetrain.testing.base import BrokerNotReadyError
from kafetrain.testing.single_node import KAFKA_VERSION

__all__ = ["cache_folder", "fetch_jars", "find_java"]

LOG4J_VERSION = "2.25.1"
OLDEST_JAVA = 17  # Kafka 4's brokers
FETCH_TIMEOUT_S = 900.0

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>kafetrain</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-core</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def find_java(environment: Mapping[str, str]) -> str:
    """The Java program to use: `JAVA_HOME`'s, else the one on the path. Raises `BrokerNotReadyError`."""
    home = environment.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None:
        raise BrokerNotReadyError("no java on the path, and JAVA_HOME is not set")
    try:
        answer = subprocess.run(
            [java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerNotReadyError(f"{java} -version failed: {error}") from error
    version = java_version(answer.stderr + answer.stdout)
    if version is None or version < OLDEST_JAVA:
        raise BrokerNotReadyError(
            f"{java} is Java {version or 'of an unknown version'}, and Kafka {KAFKA_VERSION} needs {OLDEST_JAVA}"
        )
    return java


def java_version(text: str) -> int | None:
    """The major version in what `java -version` prints; 8 for `1.8.0_392`. None: there is none."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where downloads are kept: `KAFETRAIN_CACHE`, else `kafetrain` in `XDG_CACHE_HOME` or `~/.cache`."""
    if own := environment.get("KAFETRAIN_CACHE"):
        return Path(own)
    if shared := environment.get("XDG_CACHE_HOME"):
        return Path(shared, "kafetrain")
    return Path.home() / ".cache" / "kafetrain"


def fetch_jars(cache: Path) -> Path:
    """The folder with Kafka's jars, filled by Maven on first use. Raises `BrokerNotReadyError`."""
    home = cache / f"kafka-{KAFKA_VERSION}"
    libs = home / "libs"
    if libs.is_dir():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerNotReadyError(f"no mvn on the path to fetch Kafka's jars with, and none are in {libs}")
    cache.mkdir(parents=True, exist_ok=True)
    # On the same file system as its final name, or the rename would be a copy.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as unfinished:
        _run_maven(maven, Path(unfinished))
        whole = Path(unfinished, "kafka")
        if not (whole / "libs" / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file():
            raise BrokerNotReadyError(f"{maven} ended well but fetched no Kafka")
        try:
            os.replace(whole, home)
        except OSError:
            if not libs.is_dir():  # else another process was first, and its jars are the same
                raise
    return libs


def _run_maven(maven: str, folder: Path) -> None:
    """Fill `folder`/kafka/libs."""
    (folder / "pom.xml").write_text(POM, encoding="utf-8")
    command = [
        maven,
        "--quiet",
        "--batch-mode",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={folder / 'kafka' / 'libs'}",
    ]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerNotReadyError(f"fetching Kafka's jars failed: {error}") from error
    if done.returncode != 0:
        raise BrokerNotReadyError(
            f"fetching Kafka's jars failed: {maven} ended with {done.returncode}:\n"
            + "\n".join(done.stdout.strip().splitlines()[:10])
        )
