"""The only code that imports a Kafka library."""
