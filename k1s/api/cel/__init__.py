"""The Common Expression Language as Kubernetes speaks it: program.py compiles and runs, library.py lists the functions."""
