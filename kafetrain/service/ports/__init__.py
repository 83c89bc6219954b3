"""What the service needs of a store and of a destination. Both are found by entry points."""
