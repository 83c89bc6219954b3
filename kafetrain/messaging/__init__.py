"""A handful of protocols, for code that is to know no broker; Kafka's implementation is `KafkaMessaging`.

For another broker, implement `Messaging` and hold it to `kafetrain.messaging.contract`.
"""

from kafetrain.messaging.kafka import KafkaMessaging
from kafetrain.messaging.protocols import Consumer, Handler, Message, Messaging, Outgoing, Producer

__all__ = ["Consumer", "Handler", "KafkaMessaging", "Message", "Messaging", "Outgoing", "Producer"]
