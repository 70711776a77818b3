"""What an unfinished stage has done so far: killed at any moment, it goes on from there.

The result is that of a run that was never stopped, to the bit. The files lie outside a stage's
outputs, which both engines delete before they run it again, and go when the stage has ended well.
How often they are written changes no result, so that the parameter is no stage's.
"""

from hmdiff.checkpoints.files import KEPT
from hmdiff.checkpoints.stage import UNSAVED, Checkpoints, checkpoints

__all__ = ["KEPT", "UNSAVED", "Checkpoints", "checkpoints"]
