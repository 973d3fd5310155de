"""The second shape of the spool: uploads' bytes in segments, in a directory that several processes share."""

from resumable.spool.segments.loss_sweep import LossSweep
from resumable.spool.segments.segment_copies import SegmentCopy
from resumable.spool.segments.segment_directory import SegmentDirectory
from resumable.spool.segments.segment_spool import SegmentSpool
from resumable.spool.segments.segment_sweeper import SegmentSweeper

__all__ = ["LossSweep", "SegmentCopy", "SegmentDirectory", "SegmentSpool", "SegmentSweeper"]
