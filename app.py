"""The app: `streamlit run app.py`. Page config, navigation, frame; everything else is a room of `fusionviz`."""

import fusionviz  # first: it sets what OpenMP must know before torch loads

# isort: split
import streamlit as st

from fusionviz.ui import frame, session
from fusionviz.ui.words import say

st.set_page_config(page_title="fusionviz", page_icon="assets/icon.svg", layout="wide")

PAGES = "fusionviz/ui/pages"
page = st.navigation(
    [
        st.Page(f"{PAGES}/explore_page.py", title=say("page.explore"), url_path="explore", default=True),
        st.Page(f"{PAGES}/systems_page.py", title=say("page.systems"), url_path="systems"),
        st.Page(f"{PAGES}/methods_page.py", title=say("page.methods"), url_path="methods"),
        st.Page(f"{PAGES}/lessons_page.py", title=say("page.lessons"), url_path="lessons"),
        st.Page(f"{PAGES}/leaderboard_page.py", title=say("page.leaderboard"), url_path="leaderboard"),
    ],
    position="top",
)
session.start(page.url_path)
if not page.url_path and session.is_system():  # a link to a whole system, opened on the first page
    st.switch_page(f"{PAGES}/systems_page.py")
frame.around(page, version=fusionviz.__version__)
session.finish()
