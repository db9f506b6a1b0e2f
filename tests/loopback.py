"""HTTP to servers on this machine: one TLS context for all clients, since each would read the machine's certificates
into its own, 30 ms of a core, and those that wait for a server make a client every few milliseconds.
"""

from __future__ import annotations

import ssl

TLS = ssl.create_default_context()
"""For `verify=`; plain HTTP never looks at it."""
