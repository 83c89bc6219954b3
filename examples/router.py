"""An app with several handlers: records go to one of them by their topic.

cd examples
KAFKA_BROKERS=localhost:9092 KAFKA_TOPICS=orders kafetrain run router:app
"""

from __future__ import annotations

from kafetrain import App, LoggingMiddleware, Record, json_of

app = App(group_id="router", middlewares=[LoggingMiddleware()])


@app.handler()  # the topics of KAFKA_TOPICS, or of kafetrain.yaml
def charge(record: Record) -> None:
    order = json_of(record)
    print(f"order {order['number']}: charged", flush=True)


@app.handler("chargebacks-*", max_retries=20)  # a pattern, and settings of its own
def refund(record: Record) -> None:
    print(f"{record.topic}: refunded", flush=True)


@app.on_start
def connect() -> None:
    print("connected to the database", flush=True)


@app.on_stop
def disconnect() -> None:
    print("disconnected", flush=True)
