"""The service proxy: Services and EndpointSlices as elements of nftables maps."""
