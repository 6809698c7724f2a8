"""Nothing here reaches the network, a GPU or a user's own caches."""

import os
import shutil
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before torch loads: weights of this machine's user must not change what tests see.
_HOME = tempfile.mkdtemp(prefix="fusionviz-tests-")
os.environ["TORCH_HOME"] = f"{_HOME}/torch"
os.environ["FUSIONVIZ_CACHE"] = f"{_HOME}/cache"
os.environ.pop("FUSIONVIZ_PICTURES", None)
os.environ.pop("FUSIONVIZ_WEIGHTS_URL", None)


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter) -> None:
    """Say plainly what was left out, and why."""
    reasons = {}
    for skipped in terminalreporter.stats.get("skipped", []):
        if isinstance(skipped.longrepr, tuple):
            reasons[skipped.longrepr[2]] = reasons.get(skipped.longrepr[2], 0) + 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason.removeprefix('Skipped: ')}")
