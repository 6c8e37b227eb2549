#!/usr/bin/env python3
"""How an agent checks that a request came from its gateway, and from whom. Needs nothing but Python.

The key is the `signing_secret` that registering the agent returned, used as it is written (the bytes of its text).
"""

import hashlib
import hmac
from datetime import datetime, timedelta, timezone


def verified_caller(headers, signing_secret, now=None, tolerance=timedelta(minutes=5)):
    """The caller's agent id ("" for an anonymous caller), or None if the headers are not the gateway's.

    `headers` maps names in lower case to values.
    """
    request_id = headers.get("x-openagora-request-id", "")
    timestamp = headers.get("x-openagora-timestamp", "")
    caller_id = headers.get("x-openagora-caller-id", "")
    signed = f"{request_id}.{timestamp}.{caller_id}".encode()
    expected = hmac.new(signing_secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), headers.get("x-openagora-signature", "").encode()):
        return None
    age = (now or datetime.now(timezone.utc)) - datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return caller_id if abs(age) <= tolerance else None
