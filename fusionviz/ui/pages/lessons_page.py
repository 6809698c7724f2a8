"""Lessons: one page of prose for each method and subject."""

from fusionviz.ui.components import lesson

lesson.show()
