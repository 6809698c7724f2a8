"""Where tests of every method run those that stand at a site inside the network."""

from fusionviz import fusion, study
from fusionviz.selection import Selection


def at_home(selection: Selection) -> Selection:
    """Return the selection on a network that has what the method stands at; most methods stand anywhere."""
    stands = fusion.spec(selection.method).stands
    return selection.with_(backbone=study.EXAMPLES[stands][0]) if stands else selection
