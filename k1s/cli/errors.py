"""What the verbs raise and how they end.

Owns: UserError and the exit codes: 0 fine, 1 something the user can put right, 70 a fault of ours. Called by: every verb.
Never does: print.
"""

from __future__ import annotations

EXIT_FAULT = 70


class UserError(Exception):
    """Something the user can put right; the message is the one line shown."""
