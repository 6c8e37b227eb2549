"""How an agent checks that a request came from its gateway, and from whom. Needs nothing but Python.

The key is the `signing_secret` that registering the agent returned, used as it is written (the bytes of its text).
`headers` maps names in lower case to values. Remember the request ids of the last minutes, if a replay would do harm.
"""

import hashlib
import hmac
from datetime import datetime, timedelta, timezone


def verified_caller(headers, signing_secret, now=None, tolerance=timedelta(minutes=5)):
    """The caller's agent id ("" for an anonymous caller), or None if these headers are not the gateway's or too old.

    This is OpenAgora's signature: it says who called and when, not what for.
    """
    request_id, timestamp, caller_id = (
        headers.get(f"x-openagora-{name}", "") for name in ("request-id", "timestamp", "caller-id")
    )
    expected = signature(signing_secret, f"{request_id}.{timestamp}.{caller_id}")
    if not hmac.compare_digest(expected, headers.get("x-openagora-signature", "").encode()):
        return None
    age = (now or datetime.now(timezone.utc)) - datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return caller_id if abs(age) <= tolerance else None


def verified_call(headers, http_method, body, own_agent_id, signing_secret, **age):
    """The same, and that this very call was meant for this agent: its level of trust, its method and its body.

    A body over 64 KiB is covered only if the agent's registration asks for it.
    """
    if verified_caller(headers, signing_secret, **age) is None:
        return None
    said = dict(part.split("=", 1) for part in headers.get("x-trustgateway-signature", "").split(";") if "=" in part)
    lines = [
        "v1",
        headers["x-openagora-request-id"],
        headers["x-openagora-timestamp"],
        headers.get("x-openagora-caller-id", ""),
        own_agent_id,
        headers.get("x-openagora-trust-level", ""),
        http_method,
        headers.get("x-trustgateway-method", ""),
        "-" if said.get("body") == "none" and len(body) > 65536 else hashlib.sha256(body).hexdigest(),
    ]
    expected = signature(signing_secret, "\n".join(lines))
    return lines[3] if hmac.compare_digest(expected, said.get("sig", "").encode()) else None


def signature(signing_secret, text):
    """Hex HMAC-SHA256."""
    return hmac.new(signing_secret.encode(), text.encode(), hashlib.sha256).hexdigest().encode()
