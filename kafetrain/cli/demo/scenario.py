"""What the demo produces, and how it ends: orders of several customers, some of whom are in trouble.

    Ada      one order fails once
    Ben      one order fails twice, and many wait behind it
    Carla    one order fails whatever is done: out of attempts, dead, and what follows is parked
    David    one order can never succeed: dead at once, and what follows is parked
    ...      with more customers more of these; the majority is healthy

Pure, and the same for the same seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["MAX_RETRIES", "MIN_ORDERS_EACH", "Customer", "End", "Order", "Scenario", "Trouble", "plan"]

MAX_RETRIES = 3
MIN_ORDERS_EACH = 4
WORK_S = 0.015
LOAD = 0.3
"""How busy the handlers are at most, so that waiting comes from retries and not from too few threads."""

_NAMES = (
    "Ada Ben Carla David Emma Finn Greta Hugo Ida Jonas Kira Leo Mara Nils Olga Paul Quinn Rosa Sven Tara "
    "Uwe Vera Willi Xenia Yann Zoe"
).split()


class Trouble(Enum):
    """What is wrong with one order of a customer. The value: how many orders the customer has, in shares."""

    NONE = ("none", 1)
    ONCE = ("fails once", 1)
    TWICE = ("fails twice", 3)
    EXHAUSTED = ("always fails", 1)
    NOT_RETRIABLE = ("can never succeed", 1)

    @property
    def share(self) -> int:
        return self.value[1]


class End(Enum):
    """How an order ends."""

    SUCCEEDED = "succeeded"
    DEAD = "dead-lettered"
    PARKED = "parked"


@dataclass(frozen=True)
class Customer:
    """A key. All of a customer's orders go to one partition."""

    name: str
    partition: int
    trouble: Trouble

    @property
    def key(self) -> bytes:
        return self.name.lower().encode()

    @property
    def healthy(self) -> bool:
        return self.trouble is Trouble.NONE


@dataclass(frozen=True)
class Order:
    """A record. Orders of a customer are produced by `number`."""

    number: int
    customer: Customer
    at_s: float
    """When it is produced, from the beginning."""
    failures: int
    """How many runs fail; more than there are attempts: all of them."""
    retriable: bool
    work_s: float
    """How long a run takes."""
    end: End
    """How it has to end."""
    runs: int
    """How many runs that takes."""


@dataclass(frozen=True)
class Scenario:
    """`customers`: the troubled ones first. `orders`: as they are produced."""

    customers: tuple[Customer, ...]
    orders: tuple[Order, ...]
    by_number: dict[int, Order] = field(repr=False)


def plan(*, seed: int, customers: int, orders: int, duration_s: float, partitions: int, concurrency: int) -> Scenario:
    """`ValueError` where the orders are too few for the customers."""
    if orders < MIN_ORDERS_EACH * customers:
        raise ValueError(f"{customers} customers need at least {MIN_ORDERS_EACH * customers} orders, not {orders}")
    chance = random.Random(seed)
    everyone = _customers(customers, partitions)
    owners = [customer for customer in everyone for _ in range(MIN_ORDERS_EACH)]
    shares = [customer.trouble.share for customer in everyone]
    owners += chance.choices(everyone, shares, k=orders - len(owners))
    chance.shuffle(owners)
    work_s = min(WORK_S, LOAD * concurrency * duration_s / orders)
    planned: list[Order] = []
    placed: dict[str, int] = {}
    for index, customer in enumerate(owners):
        position = placed[customer.name] = placed.get(customer.name, -1) + 1
        at_s = duration_s * (index + chance.random()) / orders
        planned.append(_order(index + 1, customer, position, at_s, work_s * chance.uniform(0.4, 1.6)))
    return Scenario(everyone, tuple(planned), {order.number: order for order in planned})


def _customers(count: int, partitions: int) -> tuple[Customer, ...]:
    troubles = [trouble for trouble in Trouble if trouble is not Trouble.NONE]
    troubled = max(len(troubles), count // 3)
    found = []
    for index in range(count):
        turn, letter = divmod(index, len(_NAMES))
        name = _NAMES[letter] if turn == 0 else f"{_NAMES[letter]}{turn + 1}"
        trouble = troubles[index % len(troubles)] if index < troubled else Trouble.NONE
        # In turn: each partition has troubled customers and healthy ones.
        found.append(Customer(name, index % partitions, trouble))
    return tuple(found)


def _order(number: int, customer: Customer, position: int, at_s: float, work_s: float) -> Order:
    trouble = customer.trouble
    sick = 0 if trouble is Trouble.TWICE else 1  # the position of the order that fails
    failures, retriable, end = 0, True, End.SUCCEEDED
    if position == sick:
        if trouble is Trouble.ONCE:
            failures = 1
        elif trouble is Trouble.TWICE:
            failures = 2
        elif trouble is Trouble.EXHAUSTED:
            failures, end = MAX_RETRIES + 1, End.DEAD
        elif trouble is Trouble.NOT_RETRIABLE:
            failures, retriable, end = MAX_RETRIES + 1, False, End.DEAD
    elif position > sick and trouble in (Trouble.EXHAUSTED, Trouble.NOT_RETRIABLE):
        end = End.PARKED
    runs = {End.SUCCEEDED: failures + 1, End.DEAD: failures if retriable else 1, End.PARKED: 0}[end]
    return Order(number, customer, at_s, failures, retriable, work_s, end, runs)
