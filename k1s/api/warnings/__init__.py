"""What the API server lets pass but tells its clients about (Warning headers): see table.py."""
