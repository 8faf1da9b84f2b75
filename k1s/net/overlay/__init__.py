"""Pod traffic between nodes (VXLAN, host routes). Empty: a later issue; until then pods reach pods of their own node."""
