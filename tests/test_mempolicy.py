"""Tests for `tdxfs.mempolicy`: each refusal of Linux, and the text of a policy."""

import errno

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tdxfs import mempolicy
from tdxfs.errors import Refusal
from tdxfs.mempolicy import F_NUMA_BALANCING, F_RELATIVE_NODES, F_STATIC_NODES, States
from tdxfs.model import PAGE_SIZE, MemPolicy, Mode
from tdxfs.ranges import Range

SYSTEM = States(frozenset({0, 1, 3}), frozenset({0, 1, 2, 3}), 8, "7.3")
"""Node 2 is online without memory."""
ALLOWED = frozenset({0, 1, 3})
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, MANY, WEIGHTED = range(7)


def make(word, *asked, system=SYSTEM, allowed=ALLOWED):
    return mempolicy.make(system, allowed, word, frozenset(asked))


class TestMake:
    @pytest.mark.parametrize(
        ("word", "asked"),
        [
            (7, (0,)),
            (99, ()),
            (1 << 12, (0,)),
            (0xFFFFFFFF, ()),
            (BIND | F_STATIC_NODES | F_RELATIVE_NODES, (0,)),
            (DEFAULT, (0,)),
            (DEFAULT | F_NUMA_BALANCING, ()),
            (PREFERRED | F_STATIC_NODES, ()),
            (PREFERRED | F_RELATIVE_NODES, ()),
            (PREFERRED | F_NUMA_BALANCING, (0,)),
            (INTERLEAVE | F_NUMA_BALANCING, (0,)),
            (LOCAL, (0,)),
            (LOCAL | F_STATIC_NODES, ()),
            (LOCAL | F_RELATIVE_NODES, ()),
            (BIND, ()),
            (INTERLEAVE, ()),
            (WEIGHTED, ()),
            (MANY, ()),
            (BIND, (2,)),
            (BIND, (7,)),
            (PREFERRED, (2,)),
            (INTERLEAVE, (2, 5)),
            (WEIGHTED, (2,)),
            (MANY, (2,)),
            (BIND | F_STATIC_NODES, (2,)),
        ],
    )
    def test_einval(self, word, asked):
        """Every combination that Linux answers EINVAL."""
        with pytest.raises(Refusal) as refused:
            make(word, *asked)

        assert errno.EINVAL == refused.value.errno

    @pytest.mark.parametrize("word", [WEIGHTED, MANY | F_NUMA_BALANCING])
    def test_what_only_newer_kernels_have(self, word):
        """Weighted interleave, and balancing of preferred nodes, are not in 6.1."""
        make(word, 0)
        with pytest.raises(Refusal):
            make(word, 0, system=evolve(SYSTEM, kernel="6.1"))

    def test_cut_to_what_is_allowed_and_has_memory(self):
        """Nodes without memory, or not allowed, are left out without a word."""
        assert frozenset({0}) == make(BIND, 0, 2, 5).nodes
        assert frozenset({1}) == make(INTERLEAVE, 0, 1, 3, allowed=frozenset({1})).nodes

    def test_prefer_keeps_one_node(self):
        """Of several preferred nodes the first in force counts; of none, the local one."""
        assert frozenset({1}) == make(PREFERRED, 3, 1, 2).nodes
        assert Mode.LOCAL is make(PREFERRED).mode

    def test_relative_nodes(self):
        """Node n means the n-th allowed node, and numbers fold."""
        assert frozenset({1, 3}) == make(BIND | F_RELATIVE_NODES, 1, 2).nodes
        assert frozenset({0, 1}) == make(BIND | F_RELATIVE_NODES, 3, 4).nodes

    def test_default_is_no_policy(self):
        """MPOL_DEFAULT with a mode flag is accepted, and the flag is forgotten."""
        assert mempolicy.DEFAULT == make(DEFAULT | F_STATIC_NODES)

    def test_the_word_comes_back(self):
        """get_mempolicy returns mode and flags, and of static policies the mask as it was asked."""
        policy = make(BIND | F_STATIC_NODES | F_NUMA_BALANCING, 0, 2)

        assert BIND | F_STATIC_NODES | F_NUMA_BALANCING == mempolicy.mode_word(policy)
        assert frozenset({0, 2}) == mempolicy.shown_nodes(policy)
        assert frozenset({0}) == mempolicy.shown_nodes(make(BIND, 0, 2))


class TestMasks:
    def test_how_much_is_read(self):
        """maxnode is one more than the bits, words are read whole, and NULL or no bits is no mask."""
        sizes = [mempolicy.mask_size(maxnode, False) for maxnode in (1, 2, 65, 66, 1025)]

        assert [0, 8, 8, 16, 128] == sizes
        assert mempolicy.mask_size(0, True) == 0

    @pytest.mark.parametrize("maxnode", [0, 8 * PAGE_SIZE + 2, (1 << 64) - 1])
    def test_too_long(self, maxnode):
        """More bits than a page holds, or maxnode 0 with a mask, is EINVAL."""
        with pytest.raises(Refusal) as refused:
            mempolicy.mask_size(maxnode, False)

        assert errno.EINVAL == refused.value.errno

    def test_bits_beyond_maxnode_do_not_count(self):
        """The last word is cut to maxnode - 1 bits."""
        assert frozenset({0}) == mempolicy.decode_mask(2, b"\x03" + bytes(7))

    def test_oversized_masks_must_be_zero_there(self):
        """A longer mask than the kernel's is fine while nothing is set beyond 1024."""
        assert frozenset({1023}) == mempolicy.decode_mask(2049, (1 << 1023).to_bytes(256, "little"))
        with pytest.raises(Refusal) as refused:
            mempolicy.decode_mask(2049, (1 << 1024).to_bytes(256, "little"))

        assert errno.EINVAL == refused.value.errno

    @given(st.frozensets(st.integers(0, 1023)), st.integers(1025, 4096))
    def test_masks_come_back(self, ids, maxnode):
        """What is written into a mask is what is read from it."""
        data = mempolicy.encode_mask(maxnode, ids, 1024)

        assert mempolicy.mask_size(maxnode, False) == len(data)
        assert ids == mempolicy.decode_mask(maxnode, data)

    def test_affinity(self):
        """CPUs that are not online are left out; none left is EINVAL."""
        assert frozenset({1}) == mempolicy.affinity(b"\x82", frozenset({0, 1}))
        with pytest.raises(Refusal):
            mempolicy.affinity(b"\x80", frozenset({0, 1}))


class TestCalls:
    @pytest.mark.parametrize(
        ("arguments", "privileged", "error"),
        [
            ((0, PAGE_SIZE, BIND, 8), True, errno.EINVAL),
            ((1, PAGE_SIZE, BIND, 0), True, errno.EINVAL),
            (((1 << 64) - PAGE_SIZE, 2 * PAGE_SIZE, BIND, 0), True, errno.EINVAL),
            ((0, PAGE_SIZE, BIND, mempolicy.MF_MOVE_ALL), False, errno.EPERM),
        ],
    )
    def test_mbind_refuses(self, arguments, privileged, error):
        """Unknown flags, unaligned addresses, ranges that wrap; MOVE_ALL without the capability."""
        with pytest.raises(Refusal) as refused:
            mempolicy.check_mbind(*arguments, privileged=privileged)

        assert error == refused.value.errno

    def test_mbind_ranges(self):
        """Lengths are rounded up to pages, an empty range is no range, and default forgets STRICT."""
        assert (Range(4096, 12288), 1) == mempolicy.check_mbind(4096, 4097, BIND, 1, privileged=False)
        assert (None, 0) == mempolicy.check_mbind(4096, 0, DEFAULT, 1, privileged=False)

    @pytest.mark.parametrize(
        ("flags", "address", "maxnode", "mask"),
        [
            (0, 0, 7, True),
            (8, 0, 64, False),
            (mempolicy.F_MEMS_ALLOWED | mempolicy.F_NODE, 0, 64, True),
            (mempolicy.F_MEMS_ALLOWED | mempolicy.F_ADDR, 0, 64, True),
            (0, 4096, 64, False),
            (mempolicy.F_NODE, 4096, 64, False),
        ],
    )
    def test_get_refuses(self, flags, address, maxnode, mask):
        """Short masks, unknown flags, MEMS_ALLOWED with others, an address without ADDR."""
        with pytest.raises(Refusal) as refused:
            mempolicy.check_get(flags, address, maxnode, 8, mask=mask)

        assert errno.EINVAL == refused.value.errno

    def test_get_accepts(self):
        """Without a mask maxnode does not matter, and an address goes with ADDR."""
        mempolicy.check_get(0, 0, 0, 8, mask=False)
        mempolicy.check_get(mempolicy.F_ADDR | mempolicy.F_NODE, 4096, 8, 8, mask=True)

    def test_next_node(self):
        """MPOL_F_NODE alone is for interleaving policies."""
        assert mempolicy.next_node(make(INTERLEAVE, 1, 3)) == 1
        with pytest.raises(Refusal) as refused:
            mempolicy.next_node(mempolicy.DEFAULT)
        assert errno.EINVAL == refused.value.errno

    @pytest.mark.parametrize(
        ("modes", "home", "flags", "error"),
        [
            ((BIND,), 0, 1, errno.EINVAL),
            ((BIND,), 7, 0, errno.EINVAL),
            ((), 0, 0, errno.ENOENT),
            ((None,), 0, 0, errno.ENOENT),
            ((BIND, INTERLEAVE), 0, 0, errno.EOPNOTSUPP),
        ],
    )
    def test_home_node_refuses(self, modes, home, flags, error):
        """Flags, nodes that are not online, ranges without a policy, modes without a home."""
        policies = [None if mode is None else make(mode, 0) for mode in modes]
        with pytest.raises(Refusal) as refused:
            mempolicy.set_home(SYSTEM, policies, home, flags)

        assert error == refused.value.errno

    def test_home_node(self):
        """A mapping without a policy is passed over."""
        assert [None, evolve(make(BIND, 0), home=2)] == mempolicy.set_home(SYSTEM, [None, make(BIND, 0)], 2, 0)

    @pytest.mark.parametrize(
        ("to", "privileged", "error"),
        [({2}, False, errno.EPERM), ({2}, True, errno.EINVAL), (set(), True, errno.EINVAL)],
    )
    def test_migrate_refuses(self, to, privileged, error):
        """Nodes that are not allowed: EPERM, or for the privileged EINVAL if none is left."""
        with pytest.raises(Refusal) as refused:
            mempolicy.check_migrate(ALLOWED, frozenset(to), privileged=privileged)

        assert error == refused.value.errno

    @pytest.mark.parametrize(("node", "error"), [(2, errno.ENODEV), (-1, errno.ENODEV), (3, errno.EACCES)])
    def test_move_refuses(self, node, error):
        """A node without memory is ENODEV, one that is not allowed EACCES."""
        with pytest.raises(Refusal) as refused:
            mempolicy.check_move(SYSTEM, frozenset({0, 1}), node)

        assert error == refused.value.errno


class TestText:
    @pytest.mark.parametrize(
        ("policy", "text"),
        [
            (MemPolicy(), "default"),
            (make(BIND, 0, 1), "bind:0-1"),
            (make(PREFERRED, 1), "prefer:1"),
            (make(PREFERRED), "local"),
            (make(MANY, 0, 1, 3), "prefer (many):0-1,3"),
            (make(WEIGHTED, 0), "weighted interleave:0"),
            (make(BIND | F_STATIC_NODES, 0), "bind=static:0"),
            (make(BIND | F_RELATIVE_NODES | F_NUMA_BALANCING, 0), "bind=relative|balancing:0"),
        ],
    )
    def test_both_ways(self, policy, text):
        """Policies are printed as numa_maps prints them, and read from that."""
        assert text == mempolicy.format_policy(policy)
        assert policy == mempolicy.parse_policy(text)

    @pytest.mark.parametrize("text", ["", "bound:0", "bind=odd:0", "bind:x"])
    def test_other_text(self, text):
        """What is no policy is a ValueError."""
        with pytest.raises(ValueError):
            mempolicy.parse_policy(text)
