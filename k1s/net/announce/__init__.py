"""Addresses of a pool, announced on the LAN by one node each, with failover among nodes that hear each other."""
