"""Payloads in Avro, by a `decode=` function; a pydantic model behind it gives them a type.

    pip install fastavro
    cd examples
    KAFKA_BROKERS=localhost:9092 KAFKA_TOPICS=orders kafetrain run avro_orders:app

With a schema registry, `decode` reads the schema's id from the first five bytes and asks the registry for it.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from pydantic import BaseModel

from kafetrain import App

SCHEMA = parse_schema(
    {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "number", "type": "int"}, {"name": "customer", "type": "string"}],
    }
)


class Order(BaseModel):
    number: int
    customer: str


def decode(value: bytes) -> Any:
    return schemaless_reader(BytesIO(value), SCHEMA, None)


def encode(order: Order) -> bytes:
    """What a producer does: `app.publisher("orders").publish(encode(order))`."""
    written = BytesIO()
    schemaless_writer(written, SCHEMA, order.model_dump())
    return written.getvalue()


app = App(group_id="avro-orders")


@app.handler(decode=decode)
def charge(order: Order) -> None:
    print(f"order {order.number} of {order.customer}: charged", flush=True)
