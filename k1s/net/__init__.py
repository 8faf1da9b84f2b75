"""Pod network: links and addresses, CNI, service proxy, cluster DNS. See docs/ARCHITECTURE.md."""
