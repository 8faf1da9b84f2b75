"""The benchmarks behind every figure in the README; `python -m bench` measures the budgets (docs/PERFORMANCE.md)."""
