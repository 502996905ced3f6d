"""Every variable that Twinrun reads, declared once, parsed strictly, with its provenance.

    from twinrun.env import variables as V
    V.SYMMETRIC_ALL_REDUCE.get()

Nothing is read at import: a variable's text is looked up and parsed whenever it is asked for.
"""

from twinrun.env.check import check as check
from twinrun.env.check import problems as problems
from twinrun.env.origin import Origin as Origin
from twinrun.env.process import environment as environment
from twinrun.env.registry import declared as declared
from twinrun.env.variable import Variable as Variable
