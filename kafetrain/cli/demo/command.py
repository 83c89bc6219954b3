"""`kafetrain demo`: see ordered retries happen, and have them judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kafetrain.cli.errors import FAILED

if TYPE_CHECKING:
    from kafetrain.cli.demo.play import View

__all__ = ["demo"]


def demo(
    brokers: Annotated[
        str | None,
        typer.Option("--brokers", help="host:port of a Kafka to use; else the demo brings its own broker along."),
    ] = None,
    customers: Annotated[int, typer.Option(min=7, max=60, help="How many keys there are.")] = 12,
    orders: Annotated[
        int | None,
        typer.Option(min=1, max=5000, help="How many records are produced; else 150, and 10 for each key if more."),
    ] = None,
    duration: Annotated[float, typer.Option(min=1, max=600, help="In how many seconds they are produced.")] = 6.0,
    seed: Annotated[int, typer.Option(help="The same seed: the same orders fail.")] = 7,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live view.")] = False,
) -> None:
    """Watch keys fail, wait and recover in order, while all others go on. Takes about ten seconds.

    Produces orders of some customers, lets a few of them fail, and shows what waits, what runs and what dies. At the
    end all that happened is checked against what kafetrain promises. Exit code 1: a promise was broken.
    """
    from loguru import logger
    from rich.console import Console

    from kafetrain.cli.demo.board import LiveView
    from kafetrain.cli.demo.cluster import CONCURRENCY, PARTITIONS, open_cluster
    from kafetrain.cli.demo.plain import PlainView
    from kafetrain.cli.demo.play import play
    from kafetrain.cli.demo.report import print_verdict
    from kafetrain.cli.demo.scenario import plan
    from kafetrain.cli.demo.verdict import judge
    from kafetrain.errors import ConfigurationError

    try:
        scenario = plan(
            seed=seed,
            customers=customers,
            orders=max(150, 10 * customers) if orders is None else orders,
            duration_s=duration,
            partitions=PARTITIONS,
            concurrency=CONCURRENCY,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    for layer in ("kafetrain.retry", "kafetrain.tracker"):
        logger.disable(layer)  # they warn of dead letters, which the demo shows itself; what ends them is raised
    console = Console(highlight=False, no_color=True if plain else None)
    is_live = console.is_terminal and not console.is_dumb_terminal and not plain
    with open_cluster(brokers) as cluster:
        where = cluster.description
        view: View = LiveView(console, where) if is_live else PlainView(where)
        events = play(cluster, scenario, view)
    verdict = judge(scenario.orders, events)
    print_verdict(verdict, console)
    if not verdict.good:
        raise typer.Exit(FAILED)
