"""The dax control files (section 12)."""

import os
from itertools import chain

from semantics.rule import OK, Rule, by
from semantics.writing import stores

DRIVERS, DEVICE = "bus/dax/drivers", "bus/dax/devices/dax0.0"
REGION = f"{DEVICE}/../dax_region"
BIND, UNBIND = f"{DRIVERS}/device_dax/bind", f"{DRIVERS}/device_dax/unbind"
STATICS, DYNAMICS = ("static", "static, unbound"), ("dynamic", "dynamic, unbound")


def _script(*steps):
    # writes, each with a file: what each answers
    return lambda m: [m.write(path, text) for path, text in steps]


def _writes(path, text):
    return lambda m: m.write(path, text)


def _rules(section, on, path, rows):
    # (text, answer) of one file, each asked on a machine of its own
    for text, expected in rows:
        name = text if len(text) < 40 else f"{text[:4]}... of {len(text)} bytes"
        yield Rule(section, f"{path}: {name!r} on {on}", expected, _writes(path, text), on=on)


def _drivers():
    for driver in ("device_dax", "kmem"):
        at = f"{DRIVERS}/{driver}"
        for on in ("static", "dynamic"):
            bind = [("", OK), ("garbage", "ENODEV"), ("\n", "ENODEV"), ("dax9.9", "ENODEV")]
            yield _rules("12.1", on, f"{at}/bind", bind)
            yield _rules("12.1", on, f"{at}/unbind", [("garbage", "ENODEV"), ("dax9.9", "ENODEV")])
            yield _rules("12.1", f"{on}, unbound", f"{at}/unbind", [("dax0.0", "ENODEV")])
            forms = [(name, "EINVAL") for name in ("garbage", "daxA.B", "dax", "a" * 200)]
            yield _rules("12.1", on, f"{at}/new_id", [*forms, ("dax0.0", OK)])
            yield _rules("12.1", on, f"{at}/remove_id", [*forms[:2], ("dax0.0", OK)])
            for file, words in (("new_id", ("dax9.9", "dax9.9", "dax9.9\n")), ("remove_id", ("dax9.9", "dax9.9"))):
                probe = _script(*((f"{at}/{file}", word) for word in words))
                yield [Rule("12.1", f"{at}/{file}: dax9.9 again and again on {on}", [OK] * len(words), probe, on=on)]


BINDING = (
    *_rules("12.1", "static", BIND, [("dax0.0", "EBUSY"), ("dax0.0\n", "EBUSY")]),
    *_rules("12.1", "dynamic", BIND, [("dax0.0", "EBUSY"), ("dax0.0\n", "EBUSY")]),
    Rule("12.1", f"{UNBIND}, then bind: static", [OK, OK], _script((UNBIND, "dax0.0"), (BIND, "dax0.0")), on="static"),
    *_rules("12.1", "static", f"{DRIVERS}/kmem/bind", [("dax0.0", "ENODEV")]),
    *_rules("12.1", "dynamic", f"{DRIVERS}/kmem/bind", [("dax0.0", by("ENODEV", "EBUSY", "EBUSY"))]),
    *_rules("12.1", "dynamic, empty", BIND, [("dax0.0", by("ENXIO", "ENODEV", "ENODEV"))]),
    *_rules("12.1", "dynamic", UNBIND, [("dax0.0", OK)]),
    *_rules("12.1", "dynamic, unbound", BIND, [("dax0.0", by(OK, "ENODEV", "ENODEV"))]),
    Rule(
        "12.1",
        "device_dax/bind once new_id has named the device",
        [OK, OK, OK],
        _script((f"{DRIVERS}/device_dax/new_id", "dax0.0"), (UNBIND, "dax0.0"), (BIND, "dax0.0")),
        on="dynamic, unbound",
    ),
)
STATIC = (
    *(
        Rule(
            "12.2", f"{file}: anything on {on}", "EACCES", lambda m, file=file: m.write(f"{DEVICE}/{file}", "0"), on=on
        )
        for file in ("size", "align", "numa_node")
        for on in STATICS
    ),
    *_rules("12.2", "static", f"{DEVICE}/mapping", [("0-1", "ENOENT")]),
    *(
        Rule(
            "12.2",
            f"dax_region/{file}",
            False,
            lambda m, file=file: os.path.lexists(m.at(f"{REGION}/{file}")),
            on="static",
        )
        for file in ("create", "delete", "seed")
    ),
    *(
        rule
        for on in (*STATICS, "dynamic")
        for rule in _rules("12.2", on, f"{DEVICE}/uevent", [("garbage", "EINVAL"), ("change", OK)])
    ),
    *(
        rule
        for on in (*STATICS, *DYNAMICS)
        for rule in _rules(
            "12.2",
            on,
            f"{DEVICE}/memmap_on_memory",
            [
                ("garbage", by("ENOENT", "EINVAL", "EINVAL")),
                ("1", by("ENOENT", "ENOTSUP", "ENOTSUP")),
                ("0", by("ENOENT", OK, OK)),
            ],
        )
    ),
    Rule(
        "12.2",
        "uevent reads",
        by(
            *(
                f"MAJOR={major}\nMINOR=0\nDEVNAME=dax0.0\nDRIVER=device_dax\nMODALIAS=dax:t0"
                for major in (252, 252, 251)
            )
        ),
        lambda m: m.read(f"{DEVICE}/uevent"),
        on="static",
    ),
    Rule(
        "12.2",
        "uevent of an unbound device reads",
        by(*(f"MAJOR={major}\nMINOR=0\nDEVNAME=dax0.0\nMODALIAS=dax:t0" for major in (252, 252, 251))),
        lambda m: m.read(f"{DEVICE}/uevent"),
        on="static, unbound",
    ),
)
SIZE = f"{DEVICE}/size"
ALIGN = {
    "garbage": ("ENXIO", "ENXIO", None),
    "": (OK, OK, None),
    "0": ("EINVAL", "EINVAL", None),
    "1": ("EINVAL", "EINVAL", None),
    "4097": ("EINVAL", "EINVAL", None),
    "4096": ("EBUSY", OK, "4096"),
    "2097152": ("EBUSY", OK, None),
    "2097152\n": ("EBUSY", OK, None),
    "0x200000": ("EBUSY", OK, None),
    "1073741824": ("EBUSY", "EINVAL", None),
}
SIZES = {
    "garbage": ("EINVAL", "EINVAL", None),
    "1": ("EINVAL", "EINVAL", None),
    "4096": ("EINVAL", "EINVAL", None),
    "1T": ("EINVAL", "EINVAL", None),
    "-1": ("EINVAL", "EINVAL", None),
    "99999999999999999999999": ("ERANGE", "ERANGE", None),
    "": (OK, OK, None),
    "0": ("EBUSY", OK, "0"),
    "2097152": ("EBUSY", OK, "2097152"),
}


def _sized():
    # (bound, unbound, what it reads then if it is unbound and taken)
    for file, rows, first in (("align", ALIGN, "2097152"), ("size", SIZES, "536870912")):
        for text, (bound, unbound, then) in rows.items():
            path = f"{DEVICE}/{file}"
            what = f"dynamic {file}: {text!r}"
            yield Rule("12.3", f"{what}, bound", (bound, first), stores(path, text), on="dynamic")
            yield Rule("12.3", f"{what}, unbound", (unbound, then or first), stores(path, text), on="dynamic, unbound")


def _mapping(text):
    def probe(m):
        before = set(os.listdir(m.at(DEVICE)))
        return m.write(f"{DEVICE}/mapping", text), set(os.listdir(m.at(DEVICE))) == before

    return probe


DYNAMIC = (
    *_sized(),
    *(
        Rule("12.3", f"mapping {text!r}, nothing appears, {on}", expected, _mapping(text), on=on)
        for on in DYNAMICS
        for text, expected in (
            ("garbage", ("EINVAL", True)),
            ("0-1", by(("ENXIO", True), (OK, True), (OK, True))),
            ("0-1fffff", ("ENOMEM", True)),
        )
    ),
    *_rules("12.3", "dynamic", f"{REGION}/create", [(t, "EINVAL") for t in ("garbage", "0", "2", "dax9.9", "dax0.0")]),
    *_rules("12.3", "dynamic", f"{REGION}/delete", [(t, "ENXIO") for t in ("garbage", "0", "2", "dax9.9")]),
    *(
        rule
        for on in (*DYNAMICS, "dynamic, empty")
        for rule in _rules("12.3", on, f"{REGION}/delete", [("dax0.0", "EBUSY")])
    ),
    *_rules("12.3", "dynamic", f"{REGION}/seed", [("1", "EACCES")]),
    *_rules("12.3", "dynamic", f"{DEVICE}/numa_node", [("0", "EACCES")]),
)
TWO, MAPPING = "bus/dax/devices/dax0.2", "bus/dax/devices/dax0.2/mapping"
FILES = {
    "seed": f"{REGION}/seed",
    "create": f"{REGION}/create",
    "available": f"{REGION}/available_size",
    "size": f"{TWO}/size",
    "align": f"{TWO}/align",
}
STEPS = (
    ("1", "region", None, None, {"seed": "", "create": "", "available": "536870912"}),
    ("2a", "create 0", (f"{REGION}/create", "0"), "EINVAL", {}),
    ("2b", "create 2", (f"{REGION}/create", "2"), "EINVAL", {}),
    ("2", "create 1", (f"{REGION}/create", "1"), OK, {"seed": "dax0.1", "create": "dax0.1", "available": "536870912"}),
    ("3", "create 1", (f"{REGION}/create", "1"), OK, {"seed": "dax0.1", "create": "dax0.2", "size": "0"}),
    *(
        ("4", f"size {text}", (f"{TWO}/size", text), "EINVAL", {"size": "0"})
        for text in ("1", "4096", "garbage", "3000000", "10000000000")
    ),
    ("5", "size 0x4000000", (f"{TWO}/size", "0x4000000"), OK, {"size": "67108864"}),
    ("6", "size 2097152", (f"{TWO}/size", "2097152"), OK, {"size": "2097152", "available": "534773760"}),
    ("7", "align 4096", (f"{TWO}/align", "4096"), OK, {"align": "4096"}),
    *(
        ("8", f"align {text}", (f"{TWO}/align", text), "EINVAL", {"align": "4096"})
        for text in ("1073741824", "4097", "0")
    ),
    ("9", "align 2097152", (f"{TWO}/align", "2097152"), OK, {"align": "2097152"}),
    ("10a", "size 4194304", (f"{TWO}/size", "4194304"), OK, {"size": "4194304"}),
    ("10b", "size 4194304 again", (f"{TWO}/size", "4194304"), OK, {"size": "4194304"}),
    ("11", "mapping garbage", (MAPPING, "garbage"), "EINVAL", {}),
    ("12", "mapping 0-1", (MAPPING, "0-1"), by("ENXIO", OK, OK), {"size": "4194304"}),
    ("13", "mapping 68000000-681fffff", (MAPPING, "68000000-681fffff"), OK, {"size": "6291456"}),
    ("14a", "mapping with 0x", (MAPPING, "0x68000000-0x681fffff"), "ENOMEM", {}),
    ("14b", "mapping without 0x", (MAPPING, "68000000-681fffff"), "ENOMEM", {"size": "6291456"}),
    ("15", "mapping 68200000-68200fff", (MAPPING, "68200000-68200fff"), by("ENXIO", OK, OK), {"size": "6291456"}),
    ("16", "device_dax/bind dax0.2", (BIND, "dax0.2"), by(OK, "ENODEV", "ENODEV"), {}),
    ("17", "size 0", (f"{TWO}/size", "0"), by("EBUSY", OK, OK), {"size": by("6291456", "0", "0")}),
    ("18", "align 2097152", (f"{TWO}/align", "2097152"), by("EBUSY", OK, OK), {}),
    ("19", "mapping 69000000-691fffff", (MAPPING, "69000000-691fffff"), OK, {}),
    ("20", "delete dax0.2", (f"{REGION}/delete", "dax0.2"), "EBUSY", {}),
    ("21", "unbind dax0.2", (UNBIND, "dax0.2"), by(OK, "ENODEV", "ENODEV"), {}),
    ("22", "delete dax0.2", (f"{REGION}/delete", "dax0.2"), "EBUSY", {}),
    ("23", "size 0", (f"{TWO}/size", "0"), OK, {"size": "0", "available": "536870912"}),
    *(("24", f"delete {text}", (f"{REGION}/delete", text), "ENXIO", {}) for text in ("garbage", "dax9.9", "dax0.")),
    ("25", "delete dax0.2", (f"{REGION}/delete", "dax0.2"), OK, {"seed": "dax0.1", "create": ""}),
    ("26", "delete dax0.0", (f"{REGION}/delete", "dax0.0"), "EBUSY", {}),
    ("27", "delete dax0.1", (f"{REGION}/delete", "dax0.1"), OK, {"seed": "", "create": ""}),
    ("28", "create 1", (f"{REGION}/create", "1"), OK, {"seed": "dax0.1", "create": "dax0.1"}),
    ("29", "device_dax/bind dax0.0", (BIND, "dax0.0"), by("ENXIO", "ENODEV", "ENODEV"), {}),
)
"""Number, what it is, what is written, the answer, and what files read then."""


def _step(number):
    # every step is asked after those before it
    def probe(m):
        for *_, write, _, _ in STEPS[:number]:
            if write:
                m.write(*write)
        _, _, write, _, then = STEPS[number]
        return (m.write(*write) if write else None, {name: m.read(FILES[name]) for name in then})

    return probe


def _expected(expected, then):
    # one answer for each kernel
    return by(*((_pick(expected, at), {name: _pick(value, at) for name, value in then.items()}) for at in range(3)))


def _pick(one, at):
    return one.answers[at] if hasattr(one, "answers") else one


def _new_device(m):
    m.write(f"{REGION}/create", "1")
    m.write(f"{REGION}/create", "1")
    said = {
        tuple(
            m.read(f"bus/dax/devices/dax0.{n}/{file}")
            for file in ("size", "align", "target_node", "numa_node", "resource", "modalias")
        )
        for n in range(3)
    }
    names = set().union(*(os.listdir(m.at(f"bus/dax/devices/dax0.{n}")) for n in range(3)))
    return said, [m.read(f"bus/dax/devices/dax0.{n}/dev") for n in range(3)], names & {"mapping0", "driver"}


def _first_mapping(m):
    for path, text in ((f"{REGION}/create", "1"), (f"{REGION}/create", "1"), (f"{TWO}/size", "2097152")):
        m.write(path, text)
    return [m.read(f"{TWO}/mapping0/{file}") for file in ("start", "end", "page_offset")]


EMPTY = {("0", "2097152", "2", "2", "0x50000000", "dax:t0")}
SCRIPT = (
    *(
        Rule("12.4", f"step {number}: {what}", _expected(expected, then), _step(at), on="dynamic, empty")
        for at, (number, what, _, expected, then) in enumerate(STEPS)
    ),
    Rule(
        "12.4",
        "new devices: size, align, nodes, resource, modalias; dev; no mapping0 and no driver",
        by(*((EMPTY, [f"{major}:{n}" for n in range(3)], set()) for major in (252, 252, 251))),
        _new_device,
        on="dynamic, empty",
    ),
    Rule("12.4", "mapping0 of 2 MiB", ["0x50000000", "0x501fffff", "0x0"], _first_mapping, on="dynamic, empty"),
)
RULES = (*chain.from_iterable(_drivers()), *BINDING, *STATIC, *DYNAMIC, *SCRIPT)
