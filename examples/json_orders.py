"""Typed payloads: JSON into a pydantic model. What is no order is a dead letter that says which field is wrong.

cd examples
KAFKA_BROKERS=localhost:9092 KAFKA_TOPICS=orders kafetrain run json_orders:app
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from kafetrain import App, Record


class Order(BaseModel):
    number: int = Field(ge=1)
    customer: str


app = App(group_id="json-orders")


@app.handler()
def charge(order: Order, record: Record) -> None:
    print(f"order {order.number} of {order.customer}: charged, offset {record.offset}", flush=True)
