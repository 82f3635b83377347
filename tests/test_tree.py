"""The whole tree of a machine: every entry resolves, every file answers, every link leads somewhere."""

import stat

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import NoEntry, Refusal
from tdxfs.model import GIB, KERNELS, Bar, DaxDevice, DaxRegion, Driver, PciDevice, Provider
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Directory, File, Link, Tier, ro
from tdxfs.sysfs.codec import DECIMAL
from tdxfs.tree import LAST_OFFSET, Tree, inode_number, name_hash, stat_of

EVERYTHING = evolve(
    MIXED,
    dax_regions=(
        *MIXED.dax_regions,
        DaxRegion(
            1, Provider.NVDIMM, Range(16 * GIB, 17 * GIB), 4, 0, devices=(DaxDevice(0, (Range(16 * GIB, 17 * GIB),)),)
        ),
        DaxRegion(
            2,
            Provider.CXL,
            Range(18 * GIB, 19 * GIB),
            5,
            devices=(DaxDevice(0, (Range(18 * GIB, 19 * GIB),), Driver.KMEM),),
        ),
        DaxRegion(3, Provider.NVDIMM, Range(20 * GIB, 21 * GIB), 4, 0),
    ),
    pci_devices=(PciDevice("0000:17:00.0", 0x10DE, 0x2330, 0x030200, 0, (Bar(1, Range(32 * GIB, 64 * GIB)),)),),
)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("tiers", [set(Tier), {Tier.KERNEL}], ids=["all", "kernel"])
class TestEveryEntry:
    def test_listing_and_lookup_agree(self, kernel, tiers):
        """What a directory lists can be looked up, has that type, and nlink counts its subdirectories."""
        whole = Tree(
            tree(evolve(EVERYTHING, kernel=kernel))._root, tree(evolve(EVERYTHING, kernel=kernel)).machine, tiers
        )
        for path, entry in whole.walk():
            if isinstance(entry, Directory):
                listing = whole.list(path)
                assert len(set(listing.names)) == len(listing.names), path
                for name, kind in zip(listing.names, listing.types, strict=True):
                    assert stat.S_IFMT(stat_of(whole.lookup(f"{path}/{name}")).mode) == kind
                assert 2 + sum(kind == stat.S_IFDIR for kind in listing.types) == whole.nlink(entry), path

    def test_every_file_answers(self, kernel, tiers):
        """A readable file shows text that ends in a newline and fits a page, or refuses with an errno."""
        whole = Tree(
            tree(evolve(EVERYTHING, kernel=kernel))._root, tree(evolve(EVERYTHING, kernel=kernel)).machine, tiers
        )
        for path, entry in whole.walk():
            if isinstance(entry, File) and entry.mode & 0o444 and not stat.S_ISCHR(entry.mode):
                try:
                    text = entry.show()
                except Refusal:
                    continue
                assert not text or text.endswith(b"\n"), path
                assert entry.size == 0 or len(text) < 4096, path

    def test_no_link_dangles(self, kernel, tiers):
        """Every link leads to an entry of the tree."""
        whole = Tree(
            tree(evolve(EVERYTHING, kernel=kernel))._root, tree(evolve(EVERYTHING, kernel=kernel)).machine, tiers
        )
        for path, entry in whole.walk():
            if isinstance(entry, Link):
                whole.follow(path)


class TestOrder:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [("memory3", 37415068), ("size", 1334111068), ("dax0.0", 378377012), ("has_cpu", 2135489994)],
    )
    def test_hash(self, name, expected):
        """The hash is kernfs's."""
        assert expected == name_hash(name)

    def test_offsets_continue_a_listing(self):
        """Every d_off is the hash of the next entry; the last one is INT_MAX."""
        listing = tree().list("/sys/devices/system/node")
        rows = list(listing.following(0))

        assert [row[2] for row in rows[:-1]] == [name_hash(row[0]) for row in rows[1:]]
        assert rows[-1][2] == LAST_OFFSET
        assert list(listing.following(rows[2][2])) == rows[3:]

    def test_equal_hashes(self):
        """Names of one hash are in order of their names, and a listing continues behind each of them."""

        class Twins(Directory):
            """Two files."""

            WHAT = "/"

            @ro(DECIMAL)
            def ba(self):
                """The second."""
                return 2

            @ro(DECIMAL)
            def al(self):
                """The first."""
                return 1

        listing = Tree(Twins, tree().machine).list("/")
        first, second = listing.following(0)

        assert name_hash("al") == name_hash("ba") == listing.first
        assert ["al", "ba"] == [first[0], second[0]]
        assert [second] == list(listing.following(first[2]))
        assert [] == list(listing.following(second[2]))


class TestLookup:
    def test_missing_names(self):
        """A name that is not there is ENOENT; numbers have one spelling."""
        for name in ("node9", "node00", "nodex", "NODE0"):
            with pytest.raises(NoEntry):
                tree().lookup(f"/sys/devices/system/node/{name}")

    def test_inode_numbers(self):
        """An inode number is never 0 and the same at every look."""
        assert inode_number("/sys") == inode_number("/sys") != 0

    def test_abi_kernel_hides_the_rest(self):
        """With the kernel's tier alone there is no trace of what Linux lacks."""
        shown = tree()
        plain = Tree(shown._root, shown.machine, {Tier.KERNEL})
        for path in ("/sys/kernel/mm/tdx", "/sys/kernel/debug", "/sys/devices/system/node/tdx_capable"):
            shown.lookup(path)
            with pytest.raises(NoEntry):
                plain.lookup(path)
