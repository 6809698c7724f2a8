"""Methods: the catalogue by family, each with its idea, equation and source."""

from fusionviz.ui.components import catalogue

catalogue.show()
