"""The systems derain trains. Importing this package registers them all."""

from derain.train.systems.acgf import Acgf
from derain.train.systems.aueid import Aueid
from derain.train.systems.base import System, find_system
from derain.train.systems.dcd_gan import DcdGan
from derain.train.systems.derain_cyclegan import DerainCycleGan
from derain.train.systems.remaen import RemaenSystem

__all__ = ["Acgf", "Aueid", "DcdGan", "DerainCycleGan", "RemaenSystem", "System", "find_system"]
