"""The use of domain and ports: accepting tasks, and delivering them."""
