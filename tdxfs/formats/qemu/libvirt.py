"""A libvirt domain as the QEMU command line that libvirt would make of the parts that matter here."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from tdxfs.errors import UserError

UNITS = {"b": 1, "bytes": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40} | {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
UNITS |= {"tib": 1 << 40}
KIB = "KiB"
"""libvirt's unit where none is given."""


def command_of(xml: str, name: str = "domain") -> list[str]:
    """
    The command line of a domain's ``<cpu>``, ``<memory>``, ``<vcpu>``, ``<os>`` and memory devices. UserError if
    the text is no domain, or a number is none.
    """
    try:
        domain = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise UserError(f"{name}: {error}") from error
    if domain.tag != "domain":
        raise UserError(f"{name}: <{domain.tag}>: must be <domain>")
    try:
        return list(_command(domain))
    except (KeyError, ValueError) as error:
        raise UserError(f"{name}: {error}: is missing or no number") from error


def _command(domain: ElementTree.Element) -> Iterator[str]:
    cells = domain.findall("cpu/numa/cell")
    latencies = domain.findall("cpu/numa/interconnects/latency")
    bandwidths = domain.findall("cpu/numa/interconnects/bandwidth")
    devices = domain.findall("devices/memory")
    hmat = latencies or bandwidths
    kind = domain.find("os/type")
    machine = kind.get("machine", "pc") if kind is not None else "pc"
    yield "qemu-system-x86_64"
    yield from ("-machine", f"{machine},nvdimm=on{',hmat=on' if hmat else ''}")
    model = domain.findtext("cpu/model", "qemu64")
    yield from ("-cpu", model)
    yield from ("-smp", _smp(domain))
    yield from ("-m", _memory(domain, cells, devices))
    for at, cell in enumerate(cells):
        nid = cell.get("id", str(at))
        yield from ("-object", f"memory-backend-ram,id=ram-node{nid},size={_size(cell, 'memory')}")
        cpus = "".join(f",cpus={part}" for part in filter(None, cell.get("cpus", "").split(",")))
        initiator = f",initiator={_initiator(nid, cells, latencies, bandwidths)}" if hmat else ""
        yield from ("-numa", f"node,nodeid={nid}{cpus},memdev=ram-node{nid}{initiator}")
    for at, cell in enumerate(cells):
        nid = cell.get("id", str(at))
        for sibling in cell.findall("distances/sibling"):
            yield from ("-numa", f"dist,src={nid},dst={sibling.attrib['id']},val={sibling.attrib['value']}")
        for cache in cell.findall("cache"):
            yield from ("-numa", _cache(nid, cache))
    for link in (*latencies, *bandwidths):
        yield from ("-numa", _link(link))
    for at, device in enumerate(devices):
        yield from _device(at, device)
    for option, path in (("-kernel", "os/kernel"), ("-append", "os/cmdline")):
        text = domain.findtext(path)
        if text:
            yield from (option, text)


def _smp(domain: ElementTree.Element) -> str:
    vcpu = domain.find("vcpu")
    most = (vcpu.text or "1").strip() if vcpu is not None else "1"
    topology = domain.find("cpu/topology")
    counts = topology.attrib if topology is not None else {"sockets": most, "cores": "1", "threads": "1"}
    current = vcpu.get("current", most) if vcpu is not None else most
    places = "".join(f",{level}={count}" for level, count in counts.items() if level != "clusters")
    return f"{current},maxcpus={most}{places}"


def _memory(domain: ElementTree.Element, cells: list[ElementTree.Element], devices: list[ElementTree.Element]) -> str:
    total = sum(_size(cell, "memory") for cell in cells)
    if not cells:
        total = _bytes(domain.find("memory")) - sum(_bytes(device.find("target/size")) for device in devices)
    most = domain.find("maxMemory")
    if most is None:
        return f"{total}B"
    return f"{total}B,slots={most.attrib['slots']},maxmem={_bytes(most)}"


def _initiator(
    nid: str,
    cells: list[ElementTree.Element],
    latencies: list[ElementTree.Element],
    bandwidths: list[ElementTree.Element],
) -> str:
    # a cell with CPUs is its own, others have the nearest one
    own = next(cell for at, cell in enumerate(cells) if cell.get("id", str(at)) == nid)
    if own.get("cpus"):
        return nid
    near = [(int(link.attrib["value"]), link.attrib["initiator"]) for link in latencies if link.get("target") == nid]
    near += [(-_size(link, "value"), link.attrib["initiator"]) for link in bandwidths if link.get("target") == nid]
    return min(near, default=(0, next((cell.get("id", "0") for cell in cells if cell.get("cpus")), "0")))[1]


def _cache(nid: str, cache: ElementTree.Element) -> str:
    words = {"none": "none", "direct": "direct", "full": "complex"}
    policies = {"none": "none", "writeback": "write-back", "writethrough": "write-through"}
    size, line = cache.find("size"), cache.find("line")
    sizes = "".join(f",{key}={_size(one, 'value')}" for key, one in (("size", size), ("line", line)) if one is not None)
    return (
        f"hmat-cache,node-id={nid}{sizes},level={cache.attrib['level']}"
        f",associativity={words[cache.attrib['associativity']]},policy={policies[cache.attrib['policy']]}"
    )


def _link(link: ElementTree.Element) -> str:
    value = f"latency={link.attrib['value']}" if link.tag == "latency" else f"bandwidth={_size(link, 'value')}"
    cache = int(link.get("cache", "0"))
    hierarchy = ("memory", "first-level", "second-level", "third-level")[cache]
    return (
        f"hmat-lb,initiator={link.attrib['initiator']},target={link.attrib['target']},hierarchy={hierarchy}"
        f",data-type={link.attrib['type']}-{link.tag},{value}"
    )


def _device(at: int, device: ElementTree.Element) -> Iterator[str]:
    model = device.attrib["model"]
    if model not in ("dimm", "nvdimm"):
        return
    target = device.find("target")
    if target is None:
        raise KeyError("<target>")
    yield from ("-object", f"memory-backend-ram,id=mem{at},size={_bytes(target.find('size'))}")
    base = device.find("address[@type='dimm']")
    address = f",addr={base.attrib['base']}" if base is not None and base.get("base") else ""
    label = target.find("label/size")
    labels = f",label-size={_bytes(label)}" if label is not None else ""
    driver = "nvdimm" if model == "nvdimm" else "pc-dimm"
    yield from (
        "-device",
        f"{driver},id={model}{at},memdev=mem{at},node={target.findtext('node', '0')}{labels}{address}",
    )


def _bytes(element: ElementTree.Element | None) -> int:
    if element is None:
        raise KeyError("a size")
    return int((element.text or "").strip()) * _unit(element)


def _size(element: ElementTree.Element, key: str) -> int:
    return int(element.attrib[key]) * _unit(element)


def _unit(element: ElementTree.Element) -> int:
    return UNITS[element.get("unit", KIB).lower()]
