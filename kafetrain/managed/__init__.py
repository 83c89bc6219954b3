"""What a service wants around its consumers and producers: declare, switch, watch, run, stop.

The functions are those of one registry that the process shares; `Registry()` makes others.
"""

from kafetrain.managed.config import Consumer, ConsumerConfig
from kafetrain.managed.producer import ManagedProducer, Metadata
from kafetrain.managed.producer_config import ProducerConfig
from kafetrain.managed.registry import Registry
from kafetrain.managed.status import ConsumerState, ConsumerStatus

__all__ = [
    "Consumer",
    "ConsumerConfig",
    "ConsumerState",
    "ConsumerStatus",
    "ManagedProducer",
    "Metadata",
    "ProducerConfig",
    "Registry",
    "consumer",
    "default_registry",
    "producer",
    "register_consumer",
    "register_producer",
    "run",
    "set_consumer_switch",
    "start_all_consumers",
    "status",
    "statuses",
    "stop",
    "wait_stop",
]

default_registry = Registry()
consumer = default_registry.consumer
producer = default_registry.producer
register_consumer = default_registry.register_consumer
register_producer = default_registry.register_producer
run = default_registry.run
set_consumer_switch = default_registry.set_consumer_switch
start_all_consumers = default_registry.start_all_consumers
status = default_registry.status
statuses = default_registry.statuses
stop = default_registry.stop
wait_stop = default_registry.wait_stop
