"""A directory as one machine sees it over a network file system, while others change it.

The promises are those of NFS 4.1 as Linux mounts it (nfs(5): hard, close-to-open), and no more. What a machine has seen
of a name or a file may be all that it sees until its cache expires: others' files aren't there yet, a name that was
removed or replaced still leads to the file that it had, a file is as long as it was. A file without a name is answered
ESTALE, unless this machine has it open and has removed the name itself. Changes are made by the server, with what it
has, and a machine sees its own at once. An answer may be lost: then the request is repeated, and that one's answer
counts.
"""

from __future__ import annotations

import errno
import os
from random import Random

from resumable.spool.disk import FileFacts
from resumable.testing.simulated_nodes import SimulatedDirectory


def _error(number, path):
    return OSError(number, os.strerror(number), path)


class LateDisk:
    """See `IDisk`. ``disk``: what is there, for all machines. ``late_names``, ``late_files``, ``losses``: how often a
    name is late, the size of a file, and how often an answer is lost."""

    def __init__(self, disk, seed):
        self.disk = disk
        self.late_names, self.late_files, self.losses = 0.3, 0.8, 0.1
        self.random = Random(seed)
        self._open, self._hidden = {}, set()
        self.expire()

    def expire(self):
        """All that is remembered is older than it may be."""
        self._names = dict(self.disk._names)
        self._facts = {}

    def __getattr__(self, name):
        method = getattr(self.disk, name)
        if name not in ("writev", "put", "truncate", "fdatasync", "fsync"):
            return method

        def change(fd, *args):
            node = self._alive(fd)
            method(fd, *args)
            self._changed(node)

        return change

    # -- what is seen

    def _happens(self, often):
        return self.random.random() < often

    def _refresh(self, *paths):
        for path in paths:
            self._names[path] = self.disk._names.get(path)

    def _node(self, path):
        """What is by that name here, if its directory is; None: nothing."""
        self._need(os.path.dirname(path))
        if self._names.get(path) is not self.disk._names.get(path) and not self._happens(self.late_names):
            self._refresh(path)
        return self._names.get(path)

    def _need(self, directory):
        """It is there. Raises OSError."""
        if directory != "/" and not isinstance(self._node(directory), SimulatedDirectory):
            raise _error(errno.ENOENT, directory)

    def _name_of(self, node):
        """One that it has; None: it has none any more."""
        return next((name for name, each in self.disk._names.items() if each is node), None)

    def _look(self, node):
        """The size and the facts that are known of a file."""
        if node not in self._facts or not self._happens(self.late_files):
            self._changed(node)
        return self._facts[node]

    def _changed(self, node):
        self._facts[node] = (len(node.content), node.about)

    def _alive(self, fd):
        node = self.disk._descriptor(fd).node
        if self._name_of(node) is None and node not in self._hidden and not self._happens(self.late_files):
            raise _error(errno.ESTALE, str(fd))
        return node

    def _stale(self, node, path):
        """Raise the error for a file that this name has no more, and no other has."""
        if self._name_of(node) is None and self._happens(0.5):
            self._refresh(path)
            raise _error(errno.ESTALE, path)

    def _hide(self, node):
        """Its last name is removed here: it stays for those who have it open here."""
        if node in self._open.values():
            self._hidden.add(node)

    # -- names

    def open(self, path, create=False, read_only=False, within=None, mode=None):
        assert within is None
        node = self._node(path)
        if create:
            fd = self.disk.open(path, create=True)
            self._refresh(path)
        elif node is None:
            raise _error(errno.ENOENT, path)
        else:
            name = path if self.disk._names.get(path) is node else self._name_of(node)
            if name is None:
                self._refresh(path)
                raise _error(errno.ESTALE, path)
            fd = self.disk.open(name, read_only=read_only)
        return self._opened(fd)

    def create_new(self, path):
        self._need(os.path.dirname(path))
        self._refresh(path)
        return self._opened(self.disk.create_new(path))

    def _opened(self, fd):
        node = self._open[fd] = self.disk._descriptor(fd).node
        self._refresh(self.disk._descriptor(fd).path)
        self._look(node)
        return fd

    def close(self, fd):
        del self._open[fd]
        self.disk.close(fd)

    def file_size(self, path):
        facts = self.look(path)
        return facts.size if facts is not None and facts.is_file else None

    def look(self, what, within=None):
        assert within is None
        if isinstance(what, int):
            node = self._alive(what)
        else:
            try:
                node = self._node(what)
            except FileNotFoundError:
                return None
        if node is None or isinstance(node, SimulatedDirectory):
            return None if node is None else FileFacts(node.inode, 0, 0, 1, is_file=False)
        if not isinstance(what, int):
            self._stale(node, what)
        size, about = self._look(node)
        links = sum(each is node for each in self.disk._names.values())
        return FileFacts(node.inode, size, about.modified, links)

    def names(self, path):
        self._need(path)
        if not self._happens(self.late_names):
            self._refresh(*(each for each in {*self._names, *self.disk._names} if os.path.dirname(each) == path))
        found = [name for name, node in self._names.items() if node is not None and os.path.dirname(name) == path]
        return iter([os.path.basename(each) for each in found if each != "/"])

    def link(self, source, target, within=None):
        assert within is None
        node, there = self._node(source), self._node(target)
        if node is None:
            raise _error(errno.ENOENT, source)
        if there is not None:
            return False
        name = self._name_of(node)
        if name is None:
            self._refresh(source)
            raise _error(errno.ESTALE, source)
        done = self.disk.link(name, target)
        self._refresh(target)
        return done and not self._happens(self.losses)

    def rename(self, source, target, within=None):
        assert within is None
        node, there = self._node(source), self._node(target)
        if node is None:
            raise _error(errno.ENOENT, source)
        if there is node:
            return
        try:
            replaced = self.disk._names.get(target)
            self.disk.rename(source, target)
        finally:
            self._refresh(source, target)
        if replaced is not None and self._name_of(replaced) is None:
            self._hide(replaced)
        if self._happens(self.losses) and source not in self.disk._names:
            raise _error(errno.ENOENT, source)

    def unlink(self, path, within=None):
        assert within is None
        try:
            if self._node(path) is None:
                return False
        except FileNotFoundError:
            return False
        node = self.disk._names.get(path)
        done = self.disk.unlink(path)
        self._refresh(path)
        if done and self._name_of(node) is None:
            self._hide(node)
        return done and not self._happens(self.losses)

    def make_directory(self, path, mode=None, within=None):
        assert within is None
        self._need(os.path.dirname(path))
        done = self.disk.make_directory(path, mode)
        self._refresh(path)
        return done and not self._happens(self.losses)

    def sync_directory(self, path):
        self._need(path)
        self.disk.sync_directory(path)

    # -- files

    def size(self, fd):
        return self._look(self._alive(fd))[0]

    def read(self, fd, size, offset):
        seen = self.size(fd)
        return self.disk.read(fd, max(0, min(size, seen - offset)), offset)

    def copy_range(self, source, target, source_offset, target_offset, count):
        count = max(0, min(count, self.size(source) - source_offset))
        node = self._alive(target)
        copied = self.disk.copy_range(source, target, source_offset, target_offset, count)
        self._changed(node)
        return copied
