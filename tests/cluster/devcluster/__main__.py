import sys
from . import gobuild

gobuild.build()
