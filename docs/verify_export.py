#!/usr/bin/env python3
"""Checks exports of a Trust Gateway's audit log, and proofs of single calls, without the gateway. Needs only Python 3.9.

    verify_export.py KEY FILE...

FILE: an export in JSONL, one in CSV (with FILE.proof.json beside it), or what `audit prove` printed. KEY: the log's public
key (NAME+ID+BASE64) or a file that holds it, got from somewhere else than FILE. Exit code 0: all holds; 7: something does not.
"""
import base64, hashlib, json, re, sys, uuid
from datetime import datetime, timedelta

# The canonical record, version 1: tags from 1 on in this order; t: text, i: int, m: time, u: uuid, c: commitment.
FIELDS = [field.split(":") for field in (
    "id:u called_at:m target_agent_id:u caller_agent_id:u credential_id:u auth_method:t client_ip:c trust_level:t "
    "connection_id:u binding:t protocol_version:t method:t operation:t rpc_id:t task_id:t context_id:t message_id:t "
    "decision:t reason:t policy_rule:t policy_digest:t units:i outcome:t status_code:i upstream_status:i rpc_error_code:i "
    "task_state:t request_bytes:i response_bytes:i stream_events:i ttfb_ms:i latency_ms:i calls:i trace_id:t limit_name:t "
    "limit_left:i").split()]
NUMBERS = {"seq"} | {name for name, kind in FIELDS if kind == "i"}
MEMBERS = {"seq", "leaf_hash", "erased", "personal_salt", "client_ip_commitment"} | {name for name, _ in FIELDS}
ERASED = "client_ip personal_salt credential_id protocol_version method rpc_id task_id context_id message_id trace_id".split()

class Wrong(Exception): """Something does not hold."""
def need(holds, what):
    if not holds:
        raise Wrong(what)
def sha256(*parts): return hashlib.sha256(b"".join(parts)).digest()
def node(left, right): return sha256(b"\1", left, right)
def unhex(text, size=32):
    need(isinstance(text, str) and re.fullmatch("[0-9a-f]{%d}" % (2 * size), text), f"{text!r} is not {size} bytes in hexadecimal")
    return bytes.fromhex(text)
def parsed(text):
    once = lambda members: need(len(dict(members)) == len(members), "a member is there twice") or dict(members)
    return json.loads(text, object_pairs_hook=once)

def value(row, name, kind):
    """The bytes of a field; None where it is absent."""
    it = row.get(name)
    if kind == "c":
        salt, commitment = row.get("personal_salt"), row.get("client_ip_commitment")
        need((it is None) == (salt is None) and None in (it, commitment), "address, salt and commitment contradict each other")
        return sha256(unhex(salt, 16), it.encode()) if it is not None else None if commitment is None else unhex(commitment)
    if it is None:
        return None
    need(isinstance(it, str) if kind != "i" else type(it) is int, f"{name} is of the wrong kind")
    if kind == "u":
        need(str(uuid.UUID(it)) == it, f"{name} is no id as it is written here")
        return uuid.UUID(it).bytes
    if kind == "m":
        time = datetime.strptime(it, "%Y-%m-%dT%H:%M:%S.%fZ")
        need(time.isoformat(timespec="microseconds") + "Z" == it, f"{name} is no time as it is written here")
        it = (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    return it.encode() if isinstance(it, str) else it.to_bytes(8, "big", signed=True)
def leaf(row):
    """The leaf hash of a row, which its content must give unless that was erased, as it is of refused calls alone."""
    need(not row.keys() - MEMBERS, "it has members that no row has")
    stored, record, erased = unhex(row["leaf_hash"]), b"tgcall\x01", row.get("erased", False)
    for tag, (name, kind) in enumerate(FIELDS, 1):
        it = value(row, name, kind)
        record += b"" if it is None else bytes([tag]) + len(it).to_bytes(2, "big") + it
    gone = row["decision"] == "refused" and all(row.get(name) is None for name in ERASED)
    need(type(erased) is bool and gone >= erased, "it says that it was erased, and is not as erased rows are")
    need(erased or sha256(b"\0", record) == stored, "its content was changed: it does not give the leaf hash")
    return stored

def root(low, high, size, left, right):
    """RFC 6962 2.1 over leaves low to high: `left` has the full subtrees among the first `size`, `right` what is behind."""
    count, known = high - low, left if low < size else right
    if low >= size or (high <= size and count & (count - 1) == 0):
        need(known, "the range proof is too short")
        return known.pop(0)
    middle = low + (1 << (count - 1).bit_length() - 1)
    return node(root(low, middle, size, left, right), root(middle, high, size, left, right))
def inclusion(leaf, index, low, high, proof):
    """The root over leaves low to high that a proof of inclusion (RFC 6962 2.1.1) leads to."""
    if high - low == 1:
        return leaf
    need(proof and low <= index < high, "the proof is too short, or for a leaf that is not in the tree")
    sibling, middle = proof.pop(), low + (1 << (high - low - 1).bit_length() - 1)
    return (node(inclusion(leaf, index, low, middle, proof), sibling) if index < middle
            else node(sibling, inclusion(leaf, index, middle, high, proof)))

# Ed25519 (RFC 8032, 5.1): points are x, y, z and t with x/z, y/z on the curve and t = xy/z.
P, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    return (b - a) * (d - c) % P, (d + c) * (b + a) % P, (d - c) * (d + c) % P, (b - a) * (b + a) % P
def times(number, point):
    result = (0, 1, 1, 0)
    while number:
        result, point, number = add(result, point) if number & 1 else result, add(point, point), number >> 1
    return result
def point(data):
    sign, y = data[31] >> 7, int.from_bytes(data, "little") % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and x * x % P == square and (x or not sign), "the key or the signature is no point of the curve")
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P
def signed(public, text, signature):
    s = int.from_bytes(signature[32:], "little")
    need(len(signature) == 64 and s < ORDER, "the signature is none")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % ORDER
    a = times(s, point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little")))
    b = add(point(signature[:32]), times(h, point(public)))
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0

def checkpoint(note, key):
    """Size, root and further lines of a checkpoint (C2SP tlog-checkpoint) that `key` signed; None if it did not."""
    name, key_id, public = key.strip().split("+", 2)
    public = base64.b64decode(public)
    need(sha256(name.encode(), b"\n", public)[:4].hex() == key_id and public[0] == 1, f"{key} is no key")
    text, _, lines = note.rpartition("\n\n")
    for _, signer, signature in (line.split(" ") for line in lines.splitlines()):
        signature = base64.b64decode(signature)
        if (signer, signature[:4].hex()) == (name, key_id):
            need(signed(public[1:], (text + "\n").encode(), signature[4:]), "the signature of the checkpoint is wrong")
            origin, size, tree, *more = text.split("\n")
            need(origin == name, "the checkpoint is of another log")
            return int(size), base64.b64decode(tree), more
    return None
def trusted(said, key):
    """Size and root of the checkpoint in a file, if `key` signed it, or a successor that it announced."""
    need(said["version"] == 1, "it is of a version that this program does not know")
    origin = said["origin"]
    need(origin == key.split("+")[0] and origin.endswith("/" + said["node_id"]), "it is not of the log that the key is of")
    for note in said["announcements"]:
        for next_key in [line[9:] for line in (checkpoint(note, key) or (0, 0, []))[2] if line.startswith("next-key ")]:
            key = next_key if checkpoint(note, next_key) else key
    return (checkpoint(said["checkpoint"], key) or need(False, f"the checkpoint is not signed with {key}"))[:2]
def csv_rows(text):
    """Rows of CSV: an empty cell is null, "" is the empty text."""
    names, cells, at = None, [], 0
    for match in re.finditer(r'(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)', text):
        need(match.start() == at, "this is no CSV")
        at, (quoted, plain, end) = match.end(), match.groups()
        cells.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        if end == "\n":
            need(len(cells) == len(names or set(cells)), "a line has too many cells, or too few, or two columns are the same")
            if names:
                yield {name: int(cell) if name in NUMBERS else name == "erased" and cell == "true" or cell
                       for name, cell in zip(names, cells) if cell is not None}
            names, cells = names or cells, []
    need(at == len(text), "the file was cut off")
def json_rows(lines, wanted):
    for row in map(parsed, lines):
        if "end" in row:
            return need(row == {"rows": wanted, "end": True} and not next(lines, None), "the file does not end as it should")
        yield row
    raise Wrong("the file was cut off: the line that ends it is missing")
def check_export(said, rows, key):
    (size, sealed), first, last = trusted(said, key), said["first_seq"], said["last_seq"]
    left, right = ([unhex(hash) for hash in said["range_proof"][side]] for side in ("before", "after"))
    need(1 <= first <= last, f"there are no rows from {first} to {last}")
    number, erased = first - 1, 0
    for row in rows:
        try:
            need(row["seq"] == number + 1, f"in its place is row {row['seq']}")
            hash, below = leaf(row), number
        except Exception as error:
            raise Wrong(f"row {number + 1}: {error}") from error
        while below & 1:
            hash, below = node(left.pop(), hash), below >> 1
        left.append(hash)
        number, erased = number + 1, erased + bool(row.get("erased"))
    need(number == last, f"it ends with row {number}, and not with row {last}")
    need(root(0, size, last, left, right) == sealed and not left + right, "the rows do not give the signed root")
    return f"rows {first} to {last} are what was signed in a checkpoint of {size} rows; {erased} of them are erased"
def check_proof(said, key):
    (size, sealed), row, hashes = trusted(said, key), said["row"], list(map(unhex, said["hashes"]))
    need((said["size"], said["index"]) == (size, row["seq"] - 1), "row, proof and checkpoint do not belong together")
    found = inclusion(leaf(row), said["index"], 0, size, hashes)
    need(found == sealed and not hashes, "the proof does not lead to the signed root")
    return f"call {row['id']} is row {row['seq']} of what was signed in a checkpoint of {size} rows"
def check(path, key):
    with open(path, encoding="utf-8", newline="") as file:
        start = file.readline()
        if start.startswith("seq,"):
            with open(path + ".proof.json", encoding="utf-8") as beside:
                return check_export(parsed(beside.read()), csv_rows(start + file.read()), key)
        said = parsed(start if start.rstrip().endswith("}") else start + file.read())
        if said["format"] == "trust-gateway-proof":
            return check_proof(said, key)
        return check_export(said, json_rows(file, said["last_seq"] - said["first_seq"] + 1), key)

def main(key, *paths):
    key, code = key if "+" in key else open(key, encoding="utf-8").read(), 0
    for path in paths:
        try:
            print(f"{path}: {check(path, key)}")
        except Exception as error:  # whatever a file does to this program, it does not hold
            print(f"{path}: DOES NOT HOLD: {error if isinstance(error, Wrong) else repr(error)}")
            code = 7
    return code

if __name__ == "__main__": sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 2 else __doc__)
