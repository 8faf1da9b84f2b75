"""What server and agent agree on about tunnels, beside the frames (base/mux_frames).

Owns: these names. Called by: server/tunnel, agent/tunnel. Never does: anything.
"""

from __future__ import annotations

PATH = "/v1-k1s/connect"
PROTOCOL = "k1s-tunnel"
# In the answer: which server this is. In the request: to which servers the agent has tunnels already, comma separated.
SERVER_HEADER = "K1s-Server"
CONNECTED_HEADER = "K1s-Connected"
# Each side's kernel ends a connection whose other side was not heard of for so long.
DEAD_SECONDS = 10
