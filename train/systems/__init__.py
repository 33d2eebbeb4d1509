"""The systems derain trains. Importing this package registers them all."""

from derain.train.systems.acgf import Acgf
from derain.train.systems.aueid import Aueid
from derain.train.systems.base import System, find_system

__all__ = ["Acgf", "Aueid", "System", "find_system"]
