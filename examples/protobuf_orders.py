"""Payloads in Protobuf, by a `decode=` function.

pip install protobuf
cd examples
KAFKA_BROKERS=localhost:9092 KAFKA_TOPICS=orders kafetrain run protobuf_orders:app
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from kafetrain import App


def order_class() -> Any:
    """What `from orders_pb2 import Order` gives where protoc has compiled

    message Order { int32 number = 1; string customer = 2; }
    """
    file = FileDescriptorProto(name="orders.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Order")
    for number, (name, kind) in enumerate([("number", "TYPE_INT32"), ("customer", "TYPE_STRING")], start=1):
        message.field.add(name=name, number=number, type=FieldDescriptorProto.Type.Value(kind), label="LABEL_OPTIONAL")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


Order = order_class()
app = App(group_id="protobuf-orders")


@app.handler(decode=Order.FromString)
def charge(order: Any) -> None:
    print(f"order {order.number} of {order.customer}: charged", flush=True)
