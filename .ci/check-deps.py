#!/usr/bin/env python3
"""Holds the dependencies against .ci/deps.toml: banned crates, licences, sources, and crates that are built twice.

What is compiled comes from `cargo tree`, which follows features as the build does; `cargo metadata` also names crates that
optional features would bring, and is asked for licences and sources only. Needs Python 3.11 and cargo, nothing else.

    .ci/check-deps.py               check, exit code 1 with one line for each fault
    .ci/check-deps.py --self-test   test this script on made-up dependencies
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TOKEN = re.compile(r"\(|\)|/|[A-Za-z0-9.+:-]+")


def licence_allowed(expression, allowed):
    """Whether an SPDX expression can be met with allowed licences alone; raises ValueError where it cannot be read."""
    tokens = TOKEN.findall(expression)
    if "".join(tokens) != expression.replace(" ", ""):
        raise ValueError(expression)

    def peek():
        return tokens[0] if tokens else None

    def either():
        result = both()
        while peek() in ("OR", "/"):  # the slash is how older crates write OR
            tokens.pop(0)
            result = both() or result
        return result

    def both():
        result = one()
        while peek() == "AND":
            tokens.pop(0)
            result = one() and result
        return result

    def one():
        token = peek()
        if token is None or token in (")", "/", "OR", "AND", "WITH"):
            raise ValueError(expression)
        tokens.pop(0)
        if token == "(":
            result = either()
            if not tokens or tokens.pop(0) != ")":
                raise ValueError(expression)
            return result
        if peek() == "WITH":  # an exception only gives more rights
            tokens.pop(0)
            if not tokens:
                raise ValueError(expression)
            tokens.pop(0)
        return token in allowed

    result = either()
    if tokens:
        raise ValueError(expression)
    return result


def compatible(version):
    """The part of a version that a compatible update keeps: 1.2.3 -> 1, 0.4.5 -> 0.4, 0.0.6 -> 0.0.6."""
    parts = re.split(r"[-+]", version)[0].split(".")
    for count, part in enumerate(parts, 1):
        if part != "0":
            return ".".join(parts[:count])
    return ".".join(parts)


def faults(built, packages, table):
    """What is wrong, as sentences.

    built: the (name, version) pairs that are compiled; packages: those of `cargo metadata`; table: deps.toml.
    """
    found = []
    for name, version in sorted(built):
        for pattern, reason in table.get("banned", {}).items():
            if fnmatch.fnmatchcase(name, pattern):
                found.append(f"{name} {version} is banned: {reason}. `cargo tree -i {name}` shows who brings it.")

    known = {(package["name"], package["version"]): package for package in packages}
    for name, version in sorted(built):
        package = known.get((name, version))
        if package is None:
            found.append(f"{name} {version} is built, but cargo metadata does not know it: is Cargo.lock up to date?")
            continue
        source = package["source"]
        if source is None:  # a path: this repository's own
            continue
        if source not in table["sources"]:
            found.append(f"{name} {version} comes from {source}: only the sources listed in .ci/deps.toml are allowed.")
        licence = package["license"]
        if not licence:
            found.append(f"{name} {version} states no licence expression: it cannot be used as it is.")
            continue
        try:
            allowed = licence_allowed(licence, set(table["licences"]))
        except ValueError:
            found.append(f"{name} {version}: the licence {licence!r} cannot be read as an SPDX expression.")
            continue
        if not allowed:
            found.append(f"{name} {version}: the licence {licence!r} is not among those allowed in .ci/deps.toml.")

    versions = {}
    for name, version in built:
        versions.setdefault(name, set()).add(compatible(version))
    twice = {name: found for name, found in versions.items() if len(found) > 1}
    listed = table.get("duplicates", {})
    for name in sorted(twice.keys() | listed.keys()):
        actual, expected = twice.get(name, set()), set(listed.get(name, {}).get("versions", []))
        if actual == expected:
            continue
        text = ", ".join(sorted(actual))
        if not expected:
            found.append(
                f"{name} is built in several versions ({text}) and was not before: `cargo tree -i {name}@VERSION` shows who"
                f" brings each. Avoid it, or list it below [duplicates] in .ci/deps.toml with the reason."
            )
        elif not actual:
            found.append(f"{name} is built once only now: take it out of [duplicates] in .ci/deps.toml.")
        else:
            found.append(f"{name} is built as {text}, .ci/deps.toml expects {', '.join(sorted(expected))}: look, then correct it.")
    return found


def cargo(*arguments):
    result = subprocess.run(["cargo", *arguments], capture_output=True, text=True, cwd=HERE.parent)
    if result.returncode != 0:
        sys.exit(f"check-deps: `cargo {' '.join(arguments)}` failed:\n{result.stderr.strip()}")
    return result.stdout


def read_tree(text):
    """The (name, version) pairs of `cargo tree --prefix none`, whose lines begin with `name v1.2.3`."""
    return {(m[1], m[2]) for m in re.finditer(r"^(\S+) v(\S+)", text, re.MULTILINE)}


def main():
    table = tomllib.loads((HERE / "deps.toml").read_text())
    built, packages = set(), []
    for target in table["targets"]:
        tree = ["tree", "--locked", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--target", target]
        built |= read_tree(cargo(*tree))
        metadata = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        packages += json.loads(cargo(*metadata))["packages"]
    if not built:
        sys.exit("check-deps: cargo tree shows no crate at all; has the form of its lines changed?")
    found = faults(built, packages, table)
    for fault in found:
        print(f"check-deps: {fault}")
    print(f"check-deps: {len(built)} crates looked at, {len(found)} faults")
    sys.exit(1 if found else 0)


class Checks(unittest.TestCase):
    TABLE = {
        "sources": ["registry"],
        "licences": ["MIT", "Apache-2.0", "ISC"],
        "banned": {"ring": "one provider", "openssl*": "TLS is rustls"},
        "duplicates": {},
    }

    def faults(self, *crates, **table):
        """crates: (name, version[, licence[, source]])."""
        full = [(crate + ("MIT", "registry")[len(crate) - 2 :]) for crate in crates]
        packages = [{"name": n, "version": v, "license": l, "source": s} for n, v, l, s in full]
        return faults({(n, v) for n, v, _, _ in full}, packages, self.TABLE | table)

    def assert_one(self, found, *parts):
        self.assertEqual(len(found), 1, found)
        for part in parts:
            self.assertIn(part, found[0])

    def test_good_dependencies_have_no_fault(self):
        self.assertEqual(self.faults(("a", "1.0.0"), ("own", "0.1.0", None, None)), [])

    def test_a_banned_crate_is_found_by_name_and_by_pattern(self):
        self.assert_one(self.faults(("ring", "0.17.1")), "ring 0.17.1 is banned: one provider")
        self.assert_one(self.faults(("openssl-sys", "0.9.1")), "TLS is rustls")
        self.assertEqual(self.faults(("ring-like", "1.0.0")), [])

    def test_a_crate_from_elsewhere_is_found(self):
        self.assert_one(self.faults(("a", "1.0.0", "MIT", "git+https://x")), "a 1.0.0 comes from git+https://x")

    def test_licences_are_read_as_expressions(self):
        for good in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "Apache-2.0 / GPL-3.0", "MIT AND (GPL-3.0 OR ISC)",
                     "Apache-2.0 WITH LLVM-exception", "(MIT)", "GPL-3.0 AND ISC OR MIT"]:
            self.assertEqual(self.faults(("a", "1.0.0", good)), [], good)
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "GPL-3.0 WITH x", "mit"]:
            self.assert_one(self.faults(("a", "1.0.0", bad)), "is not among those allowed")

    def test_a_licence_that_cannot_be_read_is_a_fault(self):
        for bad in ["MIT OR", "(MIT", "MIT)", "MIT ISC", "OR MIT", "MIT, ISC", "MIT WITH"]:
            self.assert_one(self.faults(("a", "1.0.0", bad)), "cannot be read")
        self.assert_one(self.faults(("a", "1.0.0", None)), "states no licence")

    def test_a_new_duplicate_is_noticed_and_a_compatible_update_is_not(self):
        two = [("a", "1.2.0"), ("a", "2.0.1")]
        self.assert_one(self.faults(*two), "a is built in several versions (1, 2)")
        allowed = {"a": {"versions": ["1", "2"], "why": "x"}}
        self.assertEqual(self.faults(("a", "1.9.9"), ("a", "2.5.0"), duplicates=allowed), [])

    def test_the_list_of_duplicates_stays_true(self):
        allowed = {"a": {"versions": ["1", "2"], "why": "x"}}
        self.assert_one(self.faults(("a", "2.0.0"), duplicates=allowed), "built once only now")
        self.assert_one(self.faults(("a", "2.0.0"), ("a", "3.0.0"), duplicates=allowed), "a is built as 2, 3")

    def test_versions_below_one_are_compatible_by_their_first_number_that_is_not_zero(self):
        self.assertEqual([compatible(v) for v in ["1.2.3", "0.4.5", "0.0.6", "2.0.0-rc.1+x"]], ["1", "0.4", "0.0.6", "2"])

    def test_a_crate_that_metadata_does_not_know_is_a_fault(self):
        self.assert_one(faults({("a", "1.0.0")}, [], self.TABLE), "does not know it")

    def test_the_lines_of_cargo_tree_are_read(self):
        text = "own v0.1.0 (/somewhere)\na v1.2.3\nb v0.1.0+x (proc-macro)\na v1.2.3 (*)\n\n"
        self.assertEqual(read_tree(text), {("own", "0.1.0"), ("a", "1.2.3"), ("b", "0.1.0+x")})

    def test_the_real_table_is_well_formed(self):
        table = tomllib.loads((HERE / "deps.toml").read_text())
        self.assertTrue(table["targets"] and table["sources"] and table["licences"])
        for name, entry in table["duplicates"].items():
            self.assertGreater(len(entry["versions"]), 1, name)
            self.assertTrue(entry["why"], name)


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        unittest.main(argv=sys.argv[:1])
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        main()
