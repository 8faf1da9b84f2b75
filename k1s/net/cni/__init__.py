"""CNI: the program containerd execs, and the agent's side of it."""
