"""fusepy as its own examples use it: threads, a dictionary for each stat, names alone for a listing.

``python naive.py TREE MOUNTPOINT``; TREE is a directory of plain files, read into memory at the start.
"""

import errno
import os
import sys

import fuse


class Naive(fuse.Operations):
    """Files in memory."""

    use_ns = True

    def __init__(self, tree):
        self.stats, self.texts, self.names = {}, {}, {}
        self.fd = 0
        for place, directories, files in os.walk(tree):
            path = place.removeprefix(tree) or "/"
            self.names[path] = [".", "..", *directories, *files]
            self._add(path, place)
            for name in directories + files:
                self._add(f"{path.rstrip('/')}/{name}", os.path.join(place, name))

    def _add(self, path, place):
        seen = os.lstat(place)
        self.stats[path] = {
            "st_mode": seen.st_mode,
            "st_nlink": seen.st_nlink,
            "st_size": 0,
            "st_ctime": seen.st_ctime_ns,
            "st_mtime": seen.st_mtime_ns,
            "st_atime": seen.st_atime_ns,
        }
        if os.path.islink(place):
            self.texts[path] = os.readlink(place)
        elif os.path.isfile(place):
            with open(place, "rb") as file:
                self.texts[path] = file.read()
            self.stats[path]["st_size"] = len(self.texts[path])

    def getattr(self, path, fh=None):
        if path not in self.stats:
            raise fuse.FuseOSError(errno.ENOENT)
        return self.stats[path]

    def readdir(self, path, fh):
        return self.names[path]

    def readlink(self, path):
        return self.texts[path]

    def open(self, path, flags):
        self.fd += 1
        return self.fd

    def read(self, path, size, offset, fh):
        return self.texts[path][offset : offset + size]


if __name__ == "__main__":
    fuse.FUSE(Naive(sys.argv[1]), sys.argv[2], foreground=True, allow_other=os.geteuid() == 0)
