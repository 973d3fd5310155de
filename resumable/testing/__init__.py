"""Fakes and drivers for tests of this package and of what is built on it. Public, and kept working like the rest."""

from resumable.testing.simulated_disk import SimulatedCrash, SimulatedDisk
from resumable.testing.stepped import CallQueue, SteppedBatcher, SteppedPool

__all__ = ["CallQueue", "SimulatedCrash", "SimulatedDisk", "SteppedBatcher", "SteppedPool"]
